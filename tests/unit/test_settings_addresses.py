"""Addresses of a ``config.properties``: TorchServe's cases for its own parser, and what they mean together."""

from pathlib import Path

import pytest

from mlserve.errors import SettingError
from mlserve.settings import Settings, load_settings


def settings_of(**entries: str) -> Settings:
    lines = [(key, value, number) for number, (key, value) in enumerate(entries.items(), 1)]
    return load_settings(config_file=Path("config.properties"), properties=lines)


@pytest.mark.parametrize(
    ("api", "address", "host", "port", "tls"),
    [
        ("management", "http://127.0.0.1:45245", "127.0.0.1", 45245, False),
        ("inference", "http://127.0.0.1:45245", "127.0.0.1", 45245, False),
        ("metrics", "http://127.0.0.1:45245", "127.0.0.1", 45245, False),
        ("inference", "https://127.0.0.1:45245", "127.0.0.1", 45245, True),
        ("management", "https://127.0.0.1:45245", "127.0.0.1", 45245, True),
        ("metrics", "HTTPS://127.0.0.1:45245", "127.0.0.1", 45245, True),
        ("inference", "unix:/tmp/management.sock", "unix:/tmp/management.sock", 0, False),
        ("management", "UNIX:/tmp/management.sock", "unix:/tmp/management.sock", 0, False),
        ("management", "http://127.0.0.1", "127.0.0.1", 8081, False),
        ("inference", "http://127.0.0.1", "127.0.0.1", 80, False),
        ("metrics", "http://127.0.0.1", "127.0.0.1", 8082, False),
        ("management", "https://127.0.0.1", "127.0.0.1", 8444, True),
        ("inference", "https://127.0.0.1", "127.0.0.1", 443, True),
        ("metrics", "https://127.0.0.1", "127.0.0.1", 8445, True),
    ],
)
def test_address_means_what_it_means_to_torchserve(api, address, host, port, tls):
    settings = settings_of(**{f"{api}_address": address})
    assert settings.server.address(api) == (host, port)
    assert settings.tls.apis == ((api,) if tls else ())


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1:66666",
        "https://Incorrect?*binding:11111",
        "ftp://h:1",
        "unix:",
        "",
        "http://h:x",
        "http://h/p",
    ],
)
@pytest.mark.parametrize("api", ["inference", "management", "metrics"])
def test_address_that_is_none_is_refused_with_its_line(api, address):
    with pytest.raises(SettingError, match=rf"config.properties:1: {api}_address: expected an address such as"):
        settings_of(**{f"{api}_address": address})


def test_the_other_apis_stay_on_loopback_when_inference_is_opened():
    server = settings_of(inference_address="http://0.0.0.0:80").server
    for api in ("management", "metrics", "grpc_inference", "grpc_management"):
        assert server.address(api)[0] == "127.0.0.1"


def test_default_addresses_are_torchserves():
    server = settings_of().server
    addresses = [server.address(api) for api in ("inference", "management", "metrics", "grpc_inference")]
    assert addresses == [("127.0.0.1", port) for port in (8080, 8081, 8082, 7070)]


def test_tls_of_all_keys_is_one_list():
    settings = settings_of(
        inference_address="https://h:1",
        metrics_address="https://h:2",
        enable_grpc_ssl="true",
        management_address="http://h:3",
    )
    assert settings.tls.apis == ("inference", "metrics", "grpc_inference", "grpc_management")


def test_socket_of_the_inference_api_does_not_swallow_the_others():
    server = load_settings(flags={"server.host": "unix:/tmp/s"}).server
    assert server.address("inference") == ("unix:/tmp/s", 0)
    assert server.address("management") == ("127.0.0.1", 8081)
    assert server.address("grpc_inference") == ("127.0.0.1", 7070)
