"""The client verbs against servers that are not on plain HTTP, or ask for a token."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import LiveServer, running

from mlserve.cli.app import run

MIRROR = f"mirror={Path(__file__).parents[1] / 'conformance' / 'handlers' / 'mirror.py'}"
ASK = ["predict", "mirror", "-d", '{"a": 1}']


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Inference over TLS with a certificate that signs itself, management on a unix socket, tokens for both."""
    directory = tmp_path_factory.mktemp("s")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
    settings = {
        "TLS_APIS": "inference",
        "TLS_CERTIFICATE_FILE": str(directory / "cert.pem"),
        "TLS_PRIVATE_KEY_FILE": str(directory / "key.pem"),
        "SERVER_MANAGEMENT_HOST": f"unix:{directory / 'm.sock'}",
        "AUTH_TOKENS": "true",
    }
    with running(directory, MIRROR, settings=settings) as live:
        yield live


def key(server: LiveServer, api: str) -> str:
    return str(json.loads((server.log.parent / "key_file.json").read_text())[api]["key"])


def test_certificate_that_nobody_vouches_for_is_trusted(server: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*ASK, "--url", server.addresses["inference"], "--token", key(server, "inference")]
    assert run(argv) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "is not to be trusted: self-signed certificate" in shown.err
    assert "--cacert FILE" in shown.err


@pytest.mark.parametrize("trust", ["cacert", "insecure"])
def test_https_server_is_not_reached(server: LiveServer, capsys: pytest.CaptureFixture[str], trust: str) -> None:
    options = ["--insecure"] if trust == "insecure" else ["--cacert", str(server.log.parent / "cert.pem")]
    assert run([*ASK, "--url", server.addresses["inference"], "--token", key(server, "inference"), *options]) == 0
    assert json.loads(capsys.readouterr().out)


def test_unix_socket_is_not_reached(
    server: LiveServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.addresses["management"]
    assert address.startswith("unix:")
    monkeypatch.setenv("MLSERVE_MANAGEMENT_URL", address)
    monkeypatch.setenv("MLSERVE_TOKEN", key(server, "management"))
    assert run(["models", "list"]) == 0
    assert run(["models", "scale", "mirror", "--min-worker", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "mirror"


def test_missing_token_is_not_said(server: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--url", server.addresses["management"]]) == 1
    assert "InvalidKeyException: Token Authorization failed" in capsys.readouterr().err


def test_status_takes_a_guarded_server_for_something_else(
    server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--json", "--pid-file", str(server.pid_file)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["problem"]) == ("ready", "")
    assert [model["name"] for model in document["models"]] == ["mirror"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--url", "unix:/nowhere/m.sock"], 3, "no server at unix:/nowhere/m.sock"),
        (["--url", "https://127.0.0.1:1", "--cacert", "/nowhere.pem"], 2, "--cacert: /nowhere.pem: there is no such"),
        (["--url", "https://127.0.0.1:1", "--cacert", __file__], 2, "it holds no PEM certificates"),
        (["--url", "ftp://127.0.0.1:1"], 2, "https://host:8443 or unix:/path"),
    ],
)
def test_wrong_address_or_certificate_is_not_named(
    capsys: pytest.CaptureFixture[str], options: list[str], code: int, text: str
) -> None:
    assert run(["models", "list", *options]) == code
    assert text in capsys.readouterr().err
