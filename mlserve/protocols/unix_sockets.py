"""The place of a unix socket before a listener takes it, for HTTP and gRPC alike.

Event loops bind badly: one fails for ever on the file that a killed server left behind, another takes the file away
from a server that is running.
"""

from __future__ import annotations

import errno
import os
import socket
import stat


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
