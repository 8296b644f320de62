"""HTTP by hand over a plain socket, for what no client library would send or do."""

from __future__ import annotations

import contextlib
import socket
import time
from http.client import HTTPException, HTTPResponse
from types import TracebackType

from support.server import Reply


class RawConnection:
    """A connection to 127.0.0.1 on which a test writes and reads what it likes. Use as a context manager."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send as much as the server takes: one that has refused may close before everything is sent."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def answer(self) -> Reply | None:
        """The next answer, or None if the connection ends without one. Raises for half an answer."""
        response = HTTPResponse(self.socket)
        try:
            response.begin()
        except (ConnectionResetError, BrokenPipeError):
            return None
        except HTTPException as error:
            if type(error).__name__ == "RemoteDisconnected":
                return None
            raise
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, response.read())

    def rest(self) -> bytes:
        """Everything until the server closes. A reset is raised."""
        pieces = []
        while piece := self.socket.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


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
