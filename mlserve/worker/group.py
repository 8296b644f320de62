"""One worker of several processes, or of one that another program starts: the process between them and the server.

::

    python -m mlserve.worker.group --fd N --ranks K --batches all|first --launch '["torchrun", ...]'

torchrun and torch's CPU launcher start the workers proper and pass no descriptors on, so those connect to a socket of
this process. What comes from the server goes to every rank (batches to the first one only with ``--batches first``);
what goes to the server is the first rank's, except log records and failures to load, which are everybody's. The model
is ready when it is on all ranks. When one rank ends, all do: the server starts the group anew.

Frames are passed on as they are: some 40 us a batch, where a model that needs several processes takes milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlserve.wire.frames import Frame, FrameError, FrameReader, Kind, encode_meta, header
from mlserve.wire.payload import Hello, Load

RECEIVE = 256 << 10
END_GRACE = 2.0  # s from SIGTERM to SIGKILL
_ALWAYS = (Kind.LOG, Kind.FAILED)  # pass on from every rank


class Rank:
    """One worker process, once it has said hello."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = FrameReader()
        self.ready = False
        self.early: list[Frame] = []
        while not self.early:
            data = sock.recv(RECEIVE)
            if not data:
                raise FrameError("a rank ended before it said hello")
            self.early = self.reader.feed(data)
        if self.early[0].kind != Kind.HELLO:
            raise FrameError("a rank did not begin with hello")
        self.hello = self.early.pop(0)
        self.number = msgspec.msgpack.decode(self.hello.meta, type=Hello).rank


class Group:
    """Passes frames between the server and the ranks."""

    def __init__(self, server: socket.socket, ranks: Sequence[Rank], batches: str) -> None:
        self._server = server
        self._ranks = sorted(ranks, key=lambda rank: rank.number)
        self._first_only = batches == "first"
        self._up = threading.Lock()
        self.over = threading.Event()

    def run(self) -> None:
        """Return when the server or a rank has gone."""
        self._send_up(self._ranks[0].hello)
        for work in (self._down, *(lambda rank=rank: self._from(rank) for rank in self._ranks)):
            threading.Thread(target=self._until_over, args=(work,), daemon=True).start()
        self.over.wait()

    def _until_over(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except (OSError, FrameError) as error:
            if not self.over.is_set():
                print(f"worker group: {error}", file=sys.stderr, flush=True)
        finally:
            self.over.set()

    def _down(self) -> None:
        reader = FrameReader()
        while data := self._server.recv(RECEIVE):
            for frame in reader.feed(data):
                self._distribute(frame)

    def _distribute(self, frame: Frame) -> None:
        if frame.kind == Kind.LOAD:
            load = msgspec.msgpack.decode(frame.meta, type=Load)
            for rank in self._ranks:
                if load.gpu_id is not None:
                    load.gpu_id = rank.number  # they see the same GPUs and take one each
                _send(rank.sock, Frame(frame.kind, frame.batch_id, encode_meta(load), frame.body))
            return
        if frame.kind == Kind.CANCEL and len(self._ranks) > 1 and not self._first_only:
            return  # ranks would hear of it at different moments, compute batches of different shapes, and hang
        first_only = frame.kind == Kind.PING or (self._first_only and frame.kind in (Kind.BATCH, Kind.CANCEL))
        for rank in self._ranks[:1] if first_only else self._ranks:
            _send(rank.sock, frame)

    def _from(self, rank: Rank) -> None:
        for frame in rank.early:
            self._collect(rank, frame)
        while data := rank.sock.recv(RECEIVE):
            for frame in rank.reader.feed(data):
                self._collect(rank, frame)

    def _collect(self, rank: Rank, frame: Frame) -> None:
        if frame.kind == Kind.READY:
            with self._up:
                rank.ready = True
                complete = all(other.ready for other in self._ranks)
            if complete:
                self._send_up(frame)
        elif frame.kind in _ALWAYS or rank is self._ranks[0]:
            self._send_up(frame)

    def _send_up(self, frame: Frame) -> None:
        with self._up:
            _send(self._server, frame)


def _send(sock: socket.socket, frame: Frame) -> None:
    head = header(frame.kind, frame.batch_id, len(frame.meta), len(frame.body))
    sock.sendall(head + frame.meta)
    if len(frame.body):
        sock.sendall(frame.body)


def _accept(listener: socket.socket, count: int, child: subprocess.Popen[bytes]) -> list[Rank]:
    """Wait for all ranks; the server's start-up limit is what bounds it. Raises OSError if the launcher ends first."""
    listener.settimeout(0.2)
    ranks: list[Rank] = []
    while len(ranks) < count:
        if child.poll() is not None:
            raise OSError(f"the launcher ended with {child.returncode} before its {count} workers were there")
        with contextlib.suppress(TimeoutError):
            sock, _ = listener.accept()
            sock.settimeout(None)
            ranks.append(Rank(sock))
    return ranks


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one group; returns its exit code, which is the launcher's where that has ended by itself."""
    parser = argparse.ArgumentParser(prog="python -m mlserve.worker.group")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--batches", choices=("all", "first"), default="first")
    parser.add_argument("--launch", type=json.loads, required=True)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(options.fd, False)
    server = socket.socket(fileno=options.fd)
    child: subprocess.Popen[bytes] | None = None
    try:
        # Mode 0700: nobody else may connect. It goes once all are there: nothing is left if this process is killed.
        with tempfile.TemporaryDirectory(prefix="mlserve-group-") as folder, socket.socket(socket.AF_UNIX) as listener:
            path = str(Path(folder, "s"))
            listener.bind(path)
            listener.listen(options.ranks)
            child = subprocess.Popen([*options.launch, "-m", "mlserve.worker", "--connect", path])
            ranks = _accept(listener, options.ranks, child)
        Group(server, ranks, options.batches).run()
    except (OSError, FrameError) as error:
        print(f"worker group: {error}", file=sys.stderr, flush=True)
    if child is None:
        return 1
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(END_GRACE)  # ranks that were told to end
    ended = child.poll()
    _end(child)
    return ended if ended is not None and ended > 0 else 0 if ended == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
