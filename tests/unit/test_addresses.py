"""Which listeners there are, and certificates that cannot be used: said before anything is bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserve.errors import SettingError
from mlserve.protocols.tls import server_context
from mlserve.rest.addresses import listeners
from mlserve.settings import Settings
from mlserve.settings.access import TlsSettings
from mlserve.settings.tree import ServerSettings


def plan(*, tls: tuple[str, ...] = (), **server: Any) -> list[tuple[tuple[str, ...], str, bool]]:
    settings = Settings(server=ServerSettings(**server), tls=TlsSettings(apis=tls))
    return [(address.apis, str(address), address.tls) for address in listeners(settings)]


def test_each_api_has_a_listener_of_its_own_by_default() -> None:
    assert plan() == [
        (("inference",), "127.0.0.1:8080", False),
        (("management",), "127.0.0.1:8081", False),
        (("metrics",), "127.0.0.1:8082", False),
    ]


def test_apis_with_one_address_share_a_listener() -> None:
    assert plan(management_port=8080) == [
        (("inference", "management"), "127.0.0.1:8080", False),
        (("metrics",), "127.0.0.1:8082", False),
    ]
    assert [apis for apis, _, _ in plan(management_port=8080, metrics_port=8080)] == [
        ("inference", "management", "metrics")
    ]


def test_free_ports_are_never_the_same() -> None:
    assert len(plan(inference_port=0, management_port=0, metrics_port=0)) == 3


def test_a_unix_socket_is_shared_by_path_whatever_the_ports() -> None:
    shared = plan(host="unix:/run/m.sock", management_host="unix:/run/m.sock", metrics_host="127.0.0.1")
    assert shared[0] == (("inference", "management"), "unix:/run/m.sock", False)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"tls": ("inference",), "management_port": 8080}, "share the address"),
        ({"tls": ("inference",), "host": "unix:/run/m.sock"}, "does not speak TLS"),
        ({"host": "unix:m.sock"}, "absolute path"),
    ],
)
def test_addresses_that_cannot_be_are_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        plan(**arguments)


def test_a_certificate_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="there is no certificate"):
        server_context(TlsSettings(apis=("inference",)))
    with pytest.raises(SettingError, match=r"tls\.private_key_file is not set"):
        server_context(TlsSettings(certificate_file=__file__))
    with pytest.raises(SettingError, match=r"tls\.certificate_file is /nowhere\.pem, which is no file"):
        server_context(TlsSettings(certificate_file="/nowhere.pem", private_key_file=__file__))
    with pytest.raises(SettingError, match="cannot be used"):
        server_context(TlsSettings(certificate_file=__file__, private_key_file=__file__))


def test_a_keystore_of_java_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    store = tmp_path / "keystore.jks"
    store.write_bytes(b"\xfe\xed\xfe\xed....")
    for kind in ("JKS", "PKCS12"):
        with pytest.raises(SettingError, match="keytool -importkeystore"):
            server_context(TlsSettings(keystore=str(store), keystore_type=kind))


def test_a_keystore_with_another_password_is_refused_by_the_name_of_the_setting(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    store = tmp_path / "keystore.p12"
    store.write_bytes(b"junk")
    with pytest.raises(SettingError, match=r"tls\.keystore_pass is wrong"):
        server_context(TlsSettings(keystore=str(store)))
