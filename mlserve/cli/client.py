"""A small HTTP client for the verbs that talk to a server: standard library only, one connection, plain errors.

Addresses come from ``--url``, else from ``MLSERVE_MANAGEMENT_URL`` or ``MLSERVE_INFERENCE_URL``, else they are those of
a server on this machine with default ports.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from mlserve.errors import ServeError, SettingError

if TYPE_CHECKING:
    import http.client
    from types import TracebackType

MANAGEMENT_ENV, INFERENCE_ENV = "MLSERVE_MANAGEMENT_URL", "MLSERVE_INFERENCE_URL"
MANAGEMENT_URL, INFERENCE_URL = "http://127.0.0.1:8081", "http://127.0.0.1:8080"

CONNECT_TIMEOUT = 10.0


class NotReachable(ServeError):
    """Nothing answers at the address."""

    exit_code = 3


class Refused(ServeError):
    """The server answered with an error, or with nothing in time."""

    exit_code = 1


@dataclass(frozen=True)
class Answer:
    """A response; header names are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def error_line(self) -> str:
        """An error answer as one line: status, type and message."""
        try:
            document = json.loads(self.body)
            text = f"{document['type']}: {document['message']}"
        except (ValueError, KeyError, TypeError):
            text = self.body.decode("utf-8", "replace").strip() or self.reason
        return f"HTTP {self.status} {' '.join(text.split())[:2000]}"


def management_url(given: str = "") -> str:
    """The base URL of the management API: ``given``, else the environment's, else the default."""
    return given or os.environ.get(MANAGEMENT_ENV, "") or MANAGEMENT_URL


def inference_url(given: str = "") -> str:
    """The base URL of the inference API: ``given``, else the environment's, else the default."""
    return given or os.environ.get(INFERENCE_ENV, "") or INFERENCE_URL


def path_of(*segments: str) -> str:
    """A path of percent-encoded segments; empty ones are left out."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments if segment)


class Client:
    """Requests to one server, over one connection that is kept open. ``timeout`` is in seconds, None waits for ever.

    Raises :class:`SettingError` for a URL that is none.
    """

    def __init__(self, url: str, *, timeout: float | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise SettingError(f"{url!r} is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingError(f"{url!r} is no URL of a server; it looks like {MANAGEMENT_URL}")
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read the whole answer, whatever its status.

        Raises :class:`NotReachable`, or :class:`Refused` where an answer does not come in time or in full.
        """
        import http.client

        target = self._prefix + path + (f"?{urlencode(query)}" if query else "")
        connection = self._connect()
        try:
            connection.request(method, target, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        except TimeoutError:
            self.close()
            raise Refused(f"{self.address} did not answer within {self._timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = str(error) or type(error).__name__
            raise Refused(f"{self.address} broke the connection off before it had answered: {reason}") from None
        found = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            self.close()
        return Answer(response.status, response.reason, found, content)

    def json(self, method: str, path: str, query: Mapping[str, object] | None = None, body: bytes | None = None) -> Any:
        """The JSON document of an answer below 400. Raises :class:`Refused` with the error as one line for others."""
        answer = self.request(method, path, query=query, body=body)
        if answer.status >= 400:
            raise Refused(answer.error_line())
        try:
            return json.loads(answer.body)
        except ValueError:
            raise Refused(f"{self.address}{path} did not answer with JSON; is it the management API?") from None

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is not None:
            return self._connection
        import http.client

        cls = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = cls(self._host, self._port, timeout=CONNECT_TIMEOUT)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error) or "no answer"
            raise NotReachable(
                f"no server at {self.address} ({reason}); start one with 'mlserve start', or name another with --url"
            ) from None
        connection.sock.settimeout(self._timeout)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        return connection
