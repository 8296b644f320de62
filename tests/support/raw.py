"""HTTP by hand over a plain socket, for what no client library would send or do."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from types import TracebackType

from support.server import Reply


class RawConnection:
    """A connection to 127.0.0.1 on which a test writes and reads what it likes. Use as a context manager."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send as much as the server takes: one that has refused may close before everything is sent."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def answer(self) -> Reply | None:
        """The next answer, or None if the connection ends without one. Raises for half an answer."""
        try:
            first = self._file.readline()
        except (ConnectionResetError, BrokenPipeError):
            return None
        if not first:
            return None
        version, status, *_ = first.split()
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), first
        headers = {}
        while line := self._file.readline().rstrip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if int(status) in (204, 304):  # whatever the headers say (RFC 9112, 6.3)
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join(self.chunks())
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body = self.rest() if int(status) >= 200 else b""
        return Reply(int(status), headers, body)

    def chunks(self) -> Iterator[bytes]:
        """The pieces of a chunked body as they come. Raises EOFError if its end is missing."""
        while True:
            line = self._file.readline()
            if not line:
                raise EOFError("the last chunk is missing")
            size = int(line, 16)
            piece = self._exactly(size + 2)
            assert piece[-2:] == b"\r\n"
            if not size:
                return
            yield piece[:-2]

    def _exactly(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError(f"{len(data)} of {count} bytes")
        return data

    def rest(self) -> bytes:
        """Everything until the server closes. A reset is raised."""
        return self._file.read()


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """The bytes of a POST."""
    lines = [f"POST {path} HTTP/{version}", "host: test", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *headers: str) -> bytes:
    """The bytes of a GET."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: test", *headers]).encode() + b"\r\n\r\n"


def is_refused(port: int) -> bool:
    """Whether nobody listens on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return False
    except ConnectionRefusedError:
        return True


def wait_refused(port: int, seconds: float = 5.0) -> None:
    """Return when connections to the port are refused."""
    until = time.monotonic() + seconds
    while not is_refused(port):
        assert time.monotonic() < until, f"port {port} still takes connections"
        time.sleep(0.005)
