"""What is asked: an address, a path (of gRPC: a method), and the requests that are sent there in turn."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from mlserve.errors import SettingError

UNIX = "unix:"
GRPC_SCHEMES = ("grpc", "grpcs")
SCHEMES = ("http", "https", *GRPC_SCHEMES)
DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": 7070, "grpcs": 7070}

REST, V2, GRPC, GRPC_STREAM, GRPC_V2 = "rest", "v2", "grpc", "grpc-stream", "grpc-v2"
METHODS = {
    GRPC: "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
    GRPC_STREAM: "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions",
    GRPC_V2: "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
    # The name that the protocol itself gives the service, which other servers use.
    "grpc-kserve": "/inference.GRPCInferenceService/ModelInfer",
}
STREAMING = frozenset((METHODS[GRPC_STREAM],))
PROTOCOLS = (REST, V2, *METHODS)


@dataclass(frozen=True)
class Payload:
    """One request. ``body`` is the body of a request, of gRPC the message as it is on the wire. ``expect`` is the
    answer it must have, None where any will do; JSON that says the same counts as equal."""

    body: bytes = b""
    content_type: str = ""
    expect: bytes | None = None


@dataclass(frozen=True)
class Target:
    """Where requests go and what they are.

    ``address`` is ``http://host:port``, ``https://…``, ``unix:/path``, ``grpc://…`` or ``grpcs://…``; ``path`` begins
    with a slash and is complete. ``payloads`` (at least one) take turns. ``timeout`` is in seconds, from the sending
    of a request to the end of its answer.
    """

    address: str
    path: str
    payloads: tuple[Payload, ...] = (Payload(),)
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = 30.0
    cacert: str = ""
    insecure: bool = False

    @property
    def scheme(self) -> str:
        """``http``, ``https``, ``unix``, ``grpc`` or ``grpcs``."""
        return self.address.partition(":")[0]

    @property
    def is_grpc(self) -> bool:
        """Whether this is a call and not a request of HTTP/1.1; a unix socket may be either."""
        return self.scheme in GRPC_SCHEMES or self.path in METHODS.values()


def is_address(text: str) -> bool:
    """Whether this is meant as an address, and not as the name of a model."""
    return text.startswith(UNIX) or "://" in text


def split_url(url: str) -> tuple[str, str]:
    """(address, path with query) of a URL; the path of a bare address is empty.

    Raises :class:`SettingError` for what is no URL or has a scheme that is not spoken here.
    """
    if url.startswith(UNIX):
        if len(url) == len(UNIX):
            raise SettingError("unix: lacks the path of a socket, as in unix:/run/mlserve.sock")
        return url, ""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise SettingError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise SettingError(
            f"{url!r} is no URL of a server; it looks like http://127.0.0.1:8080, https://host:8443/predictions/model, "
            "grpc://127.0.0.1:7070 or unix:/path"
        )
    if parts.username is not None:
        raise SettingError(f"{parts.hostname}: a user name in a URL is not sent; give --header 'Authorization: …'")
    path = "" if parts.path in ("", "/") and not parts.query else (parts.path or "/")
    path += f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}", quote(path, safe="/?%:@!$&'()*+,;=~-._[]")  # a space ends it otherwise


def host_port(address: str) -> tuple[str, int]:
    """The host and the port of an address that is no unix socket."""
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]


def model_path(model: str, protocol: str = REST, version: str = "") -> str:
    """The path, of gRPC the method, that asks a model. Raises :class:`SettingError` for an unknown protocol."""
    name, number = quote(model, safe=""), quote(version, safe="")
    if protocol == REST:
        return f"/predictions/{name}" + (f"/{number}" if number else "")
    if protocol == V2:
        return f"/v2/models/{name}" + (f"/versions/{number}" if number else "") + "/infer"
    if protocol in METHODS:
        return METHODS[protocol]
    raise SettingError(f"{protocol!r} is none of the protocols {', '.join(PROTOCOLS)}")
