"""A small HTTP client for the verbs that talk to a server: standard library only, one connection, plain errors.

It speaks to ``http:`` and ``https:`` addresses and to unix sockets (``unix:/run/mlserve.sock``). Which address that is,
and what opens the door there, :mod:`mlserve.cli.reaching` reads from the command line.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from mlserve.errors import ServeError, SettingError

if TYPE_CHECKING:
    import http.client
    import ssl
    from types import TracebackType

UNIX = "unix:"

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


def path_of(*segments: str) -> str:
    """A path of percent-encoded segments; empty ones are left out."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments if segment)


@dataclass(frozen=True)
class Access:
    """What opens a server's door. ``cacert`` is a PEM file of certificates to trust instead of the system's;
    ``insecure`` trusts any; ``token`` is sent as a bearer token. ``named`` are the options of these that the command
    line has: what comes from the environment may be of no use here, but they must be."""

    token: str = ""
    cacert: str = ""
    insecure: bool = False
    named: frozenset[str] = frozenset()

    def check(self, address: str) -> None:
        """Raises :class:`SettingError` for options about certificates and an address that has none."""
        about = " and ".join(sorted(self.named & {"--cacert", "--insecure"}))
        if about and not address.startswith(("https:", "grpcs:")):
            secure = address.replace("grpc:", "grpcs:").replace("http:", "https:")
            hint = f"; is it {secure}?" if secure != address else ""
            raise SettingError(f"{about}: {address} is not encrypted, so there is no certificate to check{hint}")
        if self.named >= {"--cacert", "--insecure"}:
            raise SettingError("--insecure trusts any certificate and --cacert only some; give one of them")


class Client:
    """Requests to one server, over one connection that is kept open. ``timeout`` is in seconds, None waits for ever.

    Raises :class:`SettingError` for a URL that is none.
    """

    def __init__(self, url: str, *, timeout: float | None = None, access: Access | None = None) -> None:
        self._access = access or Access()
        self._access.check(url)
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None
        self._socket_path = url[len(UNIX) :] if url.startswith(UNIX) else ""
        if self._socket_path:
            self.address, self._secure, self._host, self._port, self._prefix = url, False, "localhost", 80, ""
            return
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise SettingError(f"{url!r} is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingError(
                f"{url!r} is no URL of a server; it looks like http://127.0.0.1:8081, https://host:8443 or unix:/path"
            )
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")

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
        fields = dict(headers or {})
        if self._access.token:
            fields["Authorization"] = f"Bearer {self._access.token}"
        connection = self._connect()
        try:
            connection.request(method, target, body=body, headers=fields)
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

        try:
            sock = self._open()
        except OSError as error:
            if getattr(error, "verify_code", 0):
                raise Refused(
                    f"{self.address} is not to be trusted: {getattr(error, 'verify_message', '') or error}; name its "
                    "certificate, or who signed it, with --cacert FILE, or skip the check with --insecure"
                ) from None
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error) or "no answer"
            raise NotReachable(
                f"no server at {self.address} ({reason}); start one with 'mlserve start', or name another with --url"
            ) from None
        sock.settimeout(self._timeout)
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.sock = sock
        self._connection = connection
        return connection

    def _open(self) -> socket.socket:
        """A connection to the server, encrypted where its address says so. Raises OSError."""
        limit = min(CONNECT_TIMEOUT, self._timeout or CONNECT_TIMEOUT)
        if self._socket_path:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(limit)
                sock.connect(self._socket_path)
            except BaseException:
                sock.close()
                raise
            return sock
        context = self._context() if self._secure else None
        sock = socket.create_connection((self._host, self._port), limit)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(sock, server_hostname=self._host) if context is not None else sock
        except BaseException:
            sock.close()
            raise

    def _context(self) -> ssl.SSLContext:
        import ssl

        file = self._access.cacert
        try:
            context = ssl.create_default_context(cafile=file or None)
        except (OSError, ssl.SSLError) as error:
            why = "there is no such file" if not Path(file).exists() else f"it holds no PEM certificates: {error}"
            raise SettingError(f"--cacert: {file}: {why}") from None
        if self._access.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
