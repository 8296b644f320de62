"""One operating system process: watched, ended and reaped.

A worker leads a session of its own: Ctrl-C at the terminal reaches the server only, which then drains, and what a
handler has started itself ends with it. The process is not reaped before its group has been ended, so a process id that
is signalled here can never have become somebody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence

from mlserve.engine.local.logs import PipeReader, WorkerLog
from mlserve.engine.local.spawn import Started, start


class WorkerProcess:
    """A running child and this side of its socket. ``exited`` gets its exit status, negative for a signal."""

    def __init__(self, popen: subprocess.Popen[bytes], sock: socket.socket, pipes: list[PipeReader]) -> None:
        self.pid = popen.pid
        self.sock = sock
        self._popen = popen
        self._pipes = pipes
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = -1
        self._watch()

    @classmethod
    def of(cls, started: Started, log: WorkerLog) -> WorkerProcess:
        """Watch a child that has been started."""
        loop = asyncio.get_running_loop()
        started.sock.setblocking(False)
        pipes = [
            PipeReader(loop, started.out, logging.INFO, log),
            PipeReader(loop, started.err, logging.WARNING, log),
        ]
        return cls(started.popen, started.sock, pipes)

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log: WorkerLog,
        pass_fds: Sequence[int] = (),
    ) -> WorkerProcess:
        """:func:`start` in a thread: it waits for the child's exec, which takes milliseconds on a busy machine."""
        started = asyncio.get_running_loop().run_in_executor(None, start, command, env, pass_fds)
        return cls.of(await _finish(started), log)

    def redirect(self, log: WorkerLog) -> None:
        """Send the lines that it prints from now on to ``log``."""
        for pipe in self._pipes:
            pipe.redirect(log)

    def terminate(self) -> None:
        """Ask the worker to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker now, with all it has started."""
        self._signal(signal.SIGKILL)

    def has_exited(self) -> bool:
        """Whether the process is over, asked of the kernel: on a busy machine the event loop learns of it late."""
        if not self.exited.done():
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    self._reap()
        return self.exited.done()

    def _signal(self, number: int) -> None:
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or a sandbox without the call
            threading.Thread(target=self._wait, name=f"wait-{self.pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._reap)

    def _wait(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        if self.exited.done():
            return
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self.kill()  # what is left of its process group; the process itself is a zombie until the next line
        code = self._popen.wait()
        for pipe in self._pipes:
            pipe.close()
        self.exited.set_result(code)


async def _finish(future: asyncio.Future[Started]) -> Started:
    """The result of ``future``. If the caller is cancelled meanwhile, the child that it will start ends at once."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            (await future).end()
        raise
