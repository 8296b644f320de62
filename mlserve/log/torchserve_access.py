"""The access log in TorchServe's form."""

from __future__ import annotations

from typing import Any

from mlserve.log.access import AccessLog, BatchTimings, safe
from mlserve.log.torchserve import TorchServeLogs


class TorchServeAccessLog(AccessLog):
    """Access lines in TorchServe's form; ``other`` gets each line as well, in a form of its own.

    ``/127.0.0.1:50910 "GET /ping HTTP/1.1" 200 3``, where the last number is milliseconds. A call over gRPC has the
    method ``gRPC`` and its status code. TorchServe logs the requests of every API, not only of inference.
    """

    every_api = True

    def __init__(self, logs: TorchServeLogs, other: AccessLog | None = None) -> None:
        super().__init__("off")
        self.enabled = True
        self._logs = logs
        self._other = other
        if other is not None:
            self._form = other._form  # it alone shows request ids

    def origin(self, client: str, method: str, path: str) -> Any:
        """See ``AccessLog``."""
        protocol = "HTTP/2.0" if method == "gRPC" else "HTTP/1.1"
        where = "127.0.0.1" if client == "unix" else f"/{client}"
        own = f'{where} "{safe(method)} {safe(path)} {protocol}" '
        return own, self._other.origin(client, method, path) if self._other is not None else None

    def note(
        self,
        origin: Any,
        status: int,
        size: int,
        started: float,
        ended: float,
        request_id: bytes,
        queue: float = 0.0,
        batch: BatchTimings | None = None,
    ) -> None:
        """See ``AccessLog``."""
        if self._other is not None:
            self._other.note(origin[1], status, size, started, ended, request_id, queue, batch)
        # Whole milliseconds, cut off; the half microsecond is for the rounding of the two times.
        text = f"{origin[0]}{status} {int((ended - started) * 1e3 + 5e-4)}"
        self._logs.bare("access_log", "ACCESS_LOG", text)

    def reopen(self) -> None:
        """See ``AccessLog``. The directory's files roll by themselves."""
        if self._other is not None:
            self._other.reopen()

    def close(self, timeout: float = 5.0) -> None:
        """See ``AccessLog``. The directory's files stay open for what is logged after the last request."""
        self.enabled = False
        if self._other is not None:
            self._other.close(timeout)
