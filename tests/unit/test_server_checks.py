"""Settings that cannot go together are refused before anything is bound."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from mlserve.errors import SettingError
from mlserve.protocols.tls import server_context
from mlserve.server import _check
from mlserve.settings import load_settings
from mlserve.settings.access import TlsSettings
from mlserve.startup import make_work_dir


def check(**entries: str) -> None:
    """Check a ``config.properties`` of these entries."""
    lines = [(key, value, number) for number, (key, value) in enumerate(entries.items(), 1)]
    _check(load_settings(properties=lines))


def test_addresses_may_be_shared_by_http_apis() -> None:
    check(inference_address="http://127.0.0.1:1", management_address="http://127.0.0.1:1")
    check(**dict.fromkeys(("inference_address", "management_address", "metrics_address"), "http://127.0.0.1:1"))


def test_address_is_not_shared_by_http_and_grpc() -> None:
    with pytest.raises(SettingError, match=r"server.grpc_inference_port is 1, which server.inference_port has already"):
        check(inference_address="http://127.0.0.1:1", grpc_inference_port="1")
    with pytest.raises(SettingError, match=r"server.grpc_management_port is 7070, which server.grpc_inference_port"):
        check(grpc_management_port="7070")


def test_open_address_needs_tokens_or_a_word() -> None:
    check(
        inference_address="http://0.0.0.0:1", management_address="http://0.0.0.0:2", metrics_address="http://0.0.0.0:3"
    )
    check(inference_address="http://0.0.0.0:1", disable_token_authorization="true")
    for host in ("server.host", "server.metrics_host", "server.grpc_management_host"):
        with pytest.raises(SettingError, match="anybody who reaches that address"):
            _check(load_settings(environ={f"MLSERVE_{host.replace('.', '_').upper()}": "0.0.0.0"}))


def test_socket_counts_as_local() -> None:
    check(inference_address="unix:/tmp/x.sock", disable_token_authorization="false")
    _check(load_settings(flags={"server.host": "unix:/tmp/x.sock"}))


def test_place_for_unpacked_models_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"server.temp_directory is .*gone, which is no directory"):
        make_work_dir(str(tmp_path / "gone"))
    assert make_work_dir(str(tmp_path)).parent == tmp_path


def test_short_key_of_an_old_certificate_is_taken_where_torchserve_takes_it(tmp_path: Path) -> None:
    path = str(_certificate(tmp_path, bits=1024))
    with pytest.raises(SettingError, match="key too small"):
        server_context(TlsSettings(certificate_file=path, private_key_file=path))
    assert load_settings(properties=[]).tls.weak_keys
    server_context(TlsSettings(certificate_file=path, private_key_file=path, weak_keys=True))


def _certificate(directory: Path, bits: int) -> Path:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin, end = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2046, 1, 1, tzinfo=timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = directory / "both.pem"
    path.write_bytes(pem + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path
