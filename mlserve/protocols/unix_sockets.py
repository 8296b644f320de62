"""Listening on a unix socket, for HTTP and gRPC alike.

Event loops bind badly: one fails for ever on the file that a killed server left behind, another takes the file away
from a server that is running.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from typing import Any

BACKLOG = 4096  # connections that the kernel holds for a listener, of whatever kind


class UnixListener:
    """A socket file, which is removed when the listener closes."""

    def __init__(self, path: str, server: asyncio.Server) -> None:
        self._path = path
        self._inode = os.stat(path).st_ino
        self._server = server
        self.sockets = server.sockets

    @classmethod
    async def open(cls, path: str, factory: Any, context: ssl.SSLContext | None = None) -> UnixListener:
        """Raises OSError, also where somebody listens already."""
        make_way(path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            bound.setblocking(False)
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(factory, sock=bound, ssl=context, backlog=BACKLOG)
        except BaseException:
            bound.close()
            raise
        return cls(path, server)

    def close(self) -> None:
        """Accept no more, and remove the file unless another server has put its own there."""
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def make_way(path: str) -> None:
    """Remove the socket of a server that is gone.

    Raises OSError where somebody listens, and where there is a file of another kind, which is left alone.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file, and it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its backlog is full, so somebody is there
            pass
    raise OSError(errno.EADDRINUSE, "another process listens there")
