"""Where clients reach the APIs: over TLS, a unix socket, one address for all; with tokens, and from browsers."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.raw import RawConnection, get, post
from support.server import LiveServer, launched, running

MIRROR = f"mirror={Path(__file__).parent / 'handlers' / 'mirror.py'}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``cert.pem``, ``key.pem`` and, of both, ``store.p12`` with the password ``changeit``."""
    directory = tmp_path_factory.mktemp("certificate")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost -addext"
    subprocess.run(
        ["openssl", *made.split(), "subjectAltName=IP:127.0.0.1"], cwd=directory, check=True, capture_output=True
    )
    store = "pkcs12 -export -in cert.pem -inkey key.pem -out store.p12 -passout pass:changeit"
    subprocess.run(["openssl", *store.split()], cwd=directory, check=True, capture_output=True)
    return directory


def tls_settings(certificate: Path, kind: str) -> dict[str, str]:
    files = {"TLS_KEYSTORE": str(certificate / "store.p12")}
    if kind == "pem":
        files = {
            "TLS_CERTIFICATE_FILE": str(certificate / "cert.pem"),
            "TLS_PRIVATE_KEY_FILE": str(certificate / "key.pem"),
        }
    return {"TLS_APIS": "inference,management", **files}


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"") -> Any:
    with contextlib.closing(connection):
        connection.request(method, path, body)
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        return json.loads(reply.read())


@pytest.mark.parametrize(("kind", "fast"), [("pem", "true"), ("pem", "false"), ("pkcs12", "true")])
def test_both_doors_speak_tls(tmp_path: Path, certificate: Path, kind: str, fast: str) -> None:
    if kind == "pkcs12":
        pytest.importorskip("cryptography")
    settings = {**tls_settings(certificate, kind), "SERVER_FAST_LANE": fast}
    trust = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    with running(tmp_path, MIRROR, settings=settings) as live:
        assert live.addresses["inference"].startswith("https://127.0.0.1:")
        assert live.addresses["metrics"].startswith("http://")
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", live.port(), context=trust)) as client:
            for body in (b"x", b"y" * 1_000_000):  # on one connection
                client.request("POST", "/predictions/mirror", body)
                row = json.loads(client.getresponse().read())["row"]
                assert row["body"]["length"] == len(body)
            client.request("GET", "/api-description")  # hands the connection over
            assert client.getresponse().status == 200
        client = http.client.HTTPSConnection("127.0.0.1", live.port("management"), context=trust)
        assert ask(client, "GET", "/models")["models"][0]["modelName"] == "mirror"


def test_plain_http_and_old_tls_are_refused_on_a_tls_port(tmp_path: Path, certificate: Path) -> None:
    settings = {**tls_settings(certificate, "pem"), "SERVER_HTTP_STYLE": "torchserve", "SERVER_HEADER_TIMEOUT": "0.5"}
    with running(tmp_path, MIRROR, settings=settings) as live:
        with RawConnection(live.port()) as client:
            client.send(post("/predictions/mirror", b"x" * 200_000))
            answer = client.answer()
            assert answer is not None
            assert answer.status == 403
            assert answer.json() == {"status": "This TorchServe instance only accepts HTTPS requests"}
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        plain = socket.create_connection(("127.0.0.1", live.port()), 10)
        with plain, pytest.raises((ssl.SSLError, ConnectionError)):
            old.wrap_socket(plain)
        with socket.create_connection(("127.0.0.1", live.port()), 10) as silent:
            assert silent.recv(1) == b""  # who says nothing is not waited for


def test_a_server_without_a_certificate_does_not_start(tmp_path: Path) -> None:
    with launched(tmp_path, MIRROR, settings={"TLS_APIS": "inference"}) as live:
        assert live.wait() != 0
        assert "tls.certificate_file" in live.log_text()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def test_a_unix_socket_serves_and_goes_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))  # what a killed server leaves behind
    settings = {"SERVER_HOST": f"unix:{path}", "SERVER_MANAGEMENT_HOST": f"unix:{path}"}
    with running(tmp_path, MIRROR, settings=settings) as live:
        assert live.addresses["inference"] == live.addresses["management"] == f"unix:{path}"
        assert ask(UnixConnection(path), "POST", "/predictions/mirror", b"x")["row"]["body"]["value"] == "x"
        assert ask(UnixConnection(path), "GET", "/models/mirror")[0]["modelName"] == "mirror"
        with launched(tmp_path / "second", settings=settings, store=tmp_path) as second:
            assert second.wait() != 0
            assert "another process listens there" in second.log_text()
        assert ask(UnixConnection(path), "GET", "/ping") == {"status": "Healthy"}
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with launched(tmp_path, settings={"SERVER_HOST": f"unix:{path}"}) as live:
        assert live.wait() != 0
        assert "no socket" in live.log_text()
    assert path.read_text() == "data"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """All three APIs on one port, with tokens and CORS."""
    directory = tmp_path_factory.mktemp("shared")
    settings = {
        **dict.fromkeys((f"SERVER_{api}_PORT" for api in ("INFERENCE", "MANAGEMENT", "METRICS")), str(free_port())),
        "AUTH_TOKENS": "true",
        "AUTH_KEY_FILE": str(directory / "key_file.json"),
        "CORS_ALLOWED_ORIGIN": "https://a.example",
        "CORS_ALLOWED_METHODS": "GET, POST",
        "CORS_ALLOWED_HEADERS": "authorization",
    }
    with running(directory, MIRROR, settings=settings) as live:
        yield live


def bearer(server: LiveServer, api: str) -> dict[str, str]:
    keys = json.loads((server.log.parent / "key_file.json").read_text())
    return {"authorization": f"Bearer {keys[api]['key']}"}


def test_one_address_serves_every_api(shared: LiveServer) -> None:
    assert len({shared.addresses[api] for api in ("inference", "management", "metrics")}) == 1
    inference, management = bearer(shared, "inference"), bearer(shared, "management")
    assert shared.request("POST", "/predictions/mirror", b"x", inference).json()["row"]["body"]["value"] == "x"
    assert shared.request("POST", "/models/mirror/invoke", b"x", inference).json()["row"]["body"]["value"] == "x"
    assert shared.request("GET", "/models/mirror", None, management).json()[0]["modelName"] == "mirror"
    assert shared.request("GET", "/models/mirror/1.0", None, management).json()[0]["modelVersion"] == "1.0"
    assert shared.request("GET", "/v1/models/mirror", None, management).json() == {"name": "mirror", "ready": True}
    assert b"mlserve_ready 1" in shared.request("GET", "/metrics").body
    paths = shared.request("GET", "/api-description").json()["paths"]
    assert {"/predictions/{model_name}", "/models"} <= set(paths)


@pytest.mark.parametrize(
    ("method", "path", "other"),
    [
        ("POST", "/predictions/mirror", "management"),
        ("POST", "/predictions/mirror/1.0/rest", "management"),
        ("GET", "/ping", "management"),
        ("GET", "/models", "inference"),
        ("GET", "/nowhere", "inference"),
    ],
)
def test_nothing_is_served_without_the_token_of_its_api(shared: LiveServer, method: str, path: str, other: str) -> None:
    for headers in ({}, bearer(shared, other), {"authorization": "Bearer wrong"}):
        reply = shared.request(method, path, b"x", headers)
        assert (reply.status, reply.error()[1]) == (400, "InvalidKeyException")


def test_every_answer_says_what_browsers_may_do(shared: LiveServer) -> None:
    for path, api in (
        ("/predictions/mirror", "inference"),
        ("/predictions/nope", "inference"),
        ("/models", "management"),
    ):
        reply = shared.request("GET" if api == "management" else "POST", path, b"x", bearer(shared, api))
        assert reply.headers["access-control-allow-origin"] == "https://a.example", path
        assert reply.headers["access-control-allow-methods"] == "GET, POST", path
    assert shared.request("GET", "/metrics").headers["access-control-allow-origin"] == "https://a.example"
    with RawConnection(shared.port()) as client:
        client.send(get("/ping").replace(b"HTTP/1.1", b"HTTP/9.9"))
        refused = client.answer()
        assert refused is not None
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (400, "https://a.example")


def test_a_browsers_preflight_needs_no_token(shared: LiveServer) -> None:
    asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
    for path in ("/predictions/mirror", "/models"):
        reply = shared.request("OPTIONS", path, None, asks)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-headers"] == "authorization"
