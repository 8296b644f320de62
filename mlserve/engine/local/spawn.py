"""Starting a worker's process, with the socket, pipes and arenas that it gets.

Small on purpose: the first worker is started before the server's own modules are imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlserve.wire.lending import LendingArena

REQUESTS = 128 << 20  # bytes; what has been used of them stays, as the allocator keeps as much of its own
REPLIES = 64 << 20
SPARE_COMMAND = [sys.executable, "-m", "mlserve.worker"]  # a model with an interpreter of its own gets no spare


class Started(NamedTuple):
    """A child that nobody watches yet: this side of its socket, and the ends of its standard output and error."""

    popen: subprocess.Popen[bytes]
    sock: socket.socket
    out: int
    err: int

    def end(self) -> None:
        """Kill it and close what belongs to it."""
        self.popen.kill()
        self.popen.wait()
        self.sock.close()
        os.close(self.out)
        os.close(self.err)


def start(command: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int] = ()) -> Started:
    """Start ``command`` with ``--fd N`` for its end of a socket pair. Raises OSError if that cannot be done."""
    ours, theirs = socket.socketpair()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        popen = subprocess.Popen(
            [*command, "--fd", str(theirs.fileno())],
            cwd="/",  # `python -m` looks there first; the worker enters the model's directory when it loads it
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out_write,
            stderr=err_write,
            pass_fds=(theirs.fileno(), *pass_fds),
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        os.close(out_read)
        os.close(err_read)
        raise
    finally:
        theirs.close()
        os.close(out_write)
        os.close(err_write)
    return Started(popen, ours, out_read, err_read)


def request_arena(size: int) -> LendingArena | None:
    """The server's, which all its workers map; a memfd costs no memory before it is written to."""
    return LendingArena.create(size, read_only=True) if size else None


def worker_arenas(requests: LendingArena | None, size: int) -> list[LendingArena]:
    """What a worker maps: the requests, and room of its own for replies."""
    replies = LendingArena.create(size) if size else None
    return [requests, replies] if requests is not None and replies is not None else []


def close_replies(arenas: Sequence[LendingArena]) -> None:
    """The worker that mapped ``arenas`` has ended; the requests are others' too."""
    for arena in arenas[1:]:
        arena.close()


def with_arenas(command: Sequence[str], arenas: Sequence[LendingArena]) -> list[str]:
    """``command`` of a worker that maps ``arenas``."""
    words = list(command)
    for flag, arena in zip(("arena", "reply-arena"), arenas, strict=False):
        words += [f"--{flag}-fd", str(arena.fd), f"--{flag}-size", str(arena.size)]
    return words
