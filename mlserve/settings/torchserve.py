"""TorchServe's ``config.properties`` on this tree: which key sets which field, and what is said about the rest.

Keys that set one field as it is are declared with the field (``torchserve=`` in the tree). Here are those that need
translating, and the known keys that have no meaning here. TorchServe keeps unknown keys, so they are notes, not errors.
Its two JSON values are in :mod:`mlserve.settings.torchserve_models`, its variables in
:mod:`mlserve.settings.torchserve_env`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mlserve.errors import SettingError
from mlserve.settings.torchserve_env import Entry, overriding
from mlserve.settings.torchserve_models import ModelTables, read_models, read_snapshot
from mlserve.settings.tree import UNIX, all_options
from mlserve.settings.values import Given

Property = tuple[str, str, int]  # key, value, line


@dataclass
class FromProperties:
    """What a ``config.properties`` and the variables that override it say.

    ``forced`` come from such variables, which beat the command line; ``values`` do not. ``entries`` are all keys with
    the text that counts.
    """

    values: list[Given] = field(default_factory=list)
    forced: list[Given] = field(default_factory=list)
    models: ModelTables = field(default_factory=ModelTables)
    notes: list[str] = field(default_factory=list)
    entries: dict[str, str] = field(default_factory=dict)
    model_snapshot: Mapping[str, Any] | None = None


ADDRESSES = {"inference_address": "inference", "management_address": "management", "metrics_address": "metrics"}
# (http, https) where an address names no port; its own defaults are those of a missing address, but for inference.
DEFAULT_PORTS = {"inference": (80, 443), "management": (8081, 8444), "metrics": (8082, 8445)}
GRPC_APIS = ("grpc_inference", "grpc_management")

_JAVA = "it tunes the Java server"
IGNORED = {
    **dict.fromkeys(("number_of_netty_threads", "netty_client_threads", "prefer_direct_buffer"), _JAVA),
    **dict.fromkeys(("use_native_io", "io_ratio", "vmargs", "async_logging"), _JAVA),
    "model_server_home": "no files of TorchServe are used",
    "cpp_log_config": "there is no C++ backend",
    "plugins_path": "Java plugins cannot be loaded",
    "metrics_format": "TorchServe reads it no longer either; metrics_mode=prometheus lets metrics be scraped",
}
SWITCHES = ("enable_envvars_config", "use_env_allowed_urls")  # of the reading itself
RECORDS = ("version", "python", "tsConfigFile")  # what a snapshot says about its server


def map_properties(entries: Iterable[Property], name: str, environ: Mapping[str, str] | None = None) -> FromProperties:
    """Translate the entries of the file ``name`` and the variables of ``environ`` that override them.

    Raises :class:`SettingError`, with the line, for an address or JSON value that cannot be translated. Single values
    are not checked here: the caller converts them like any other source's.
    """
    result = FromProperties()
    given = [Entry(key, value, f"{name}:{line}") for key, value, line in entries]
    over, notes = overriding({item.key: item.value for item in given}, environ or {}, known_keys())
    for entry in (*given, *over):
        target = result.forced if entry.forced else result.values
        if entry.key in _PLAIN:
            target.append(Given(_PLAIN[entry.key].key, _plain(entry, result), entry.source))
        elif entry.key in _TRANSLATED:
            target.extend(_TRANSLATED[entry.key](entry, result))
        elif entry.key in IGNORED:
            if entry.value.strip():
                result.notes.append(f"{entry.source}: {entry.key} is accepted and ignored: {IGNORED[entry.key]}")
        elif entry.key not in SWITCHES + RECORDS:
            result.notes.append(f"{entry.source}: {entry.key} is not a setting of TorchServe or mlserve and is ignored")
        result.entries[entry.key] = entry.value
    _tls((*given, *over), result)
    result.notes += notes
    return result


def known_keys() -> frozenset[str]:
    """Every key that TorchServe knows, or knew and its images still write."""
    return frozenset((*_PLAIN, *_TRANSLATED, *IGNORED, *SWITCHES, *RECORDS))


def _plain(entry: Entry, result: FromProperties) -> str:
    return _flag(entry, result) if _PLAIN[entry.key].kind == "bool" else entry.value


def _flag(entry: Entry, result: FromProperties) -> str:
    """``true`` or ``false``: to TorchServe everything but ``true`` is false, which is worth a word."""
    text = entry.value.strip().lower()
    if text not in ("true", "false"):
        result.notes.append(f"{entry.source}: {entry.key}: {entry.value!r} counts as false: only 'true' is true")
        return "false"
    return text


def _opposite(entry: Entry, result: FromProperties) -> str:
    return "false" if _flag(entry, result) == "true" else "true"


def split_address(key: str, text: str, source: str) -> tuple[str, str, int]:
    """(scheme, host, port) of an ``..._address``; of a socket ("unix", "unix:/path", 0). Raises SettingError."""
    api, wrong = ADDRESSES[key], f"{source}: {key}: expected an address such as http://127.0.0.1:8080, got {text!r}"
    text = text.strip()
    if text.lower().startswith(UNIX):
        if not text[len(UNIX) :].startswith("/"):
            raise SettingError(f"{wrong}; a socket is unix:/path")
        return "unix", UNIX + text[len(UNIX) :], 0
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingError(wrong) from None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query:
        raise SettingError(wrong)
    return parts.scheme, host, DEFAULT_PORTS[api][parts.scheme == "https"] if port is None else port


def _address(entry: Entry, result: FromProperties) -> Iterator[Given]:
    api = ADDRESSES[entry.key]
    _, host, port = split_address(entry.key, entry.value, entry.source)
    yield Given("server.host" if api == "inference" else f"server.{api}_host", host, entry.source)
    if not host.startswith(UNIX):
        yield Given(f"server.{api}_port", port, entry.source)


def _tls(entries: Sequence[Entry], result: FromProperties) -> None:
    """Which APIs speak TLS: one list here, five keys there."""
    last = {entry.key: entry for entry in entries}
    apis: dict[str, Entry] = {}
    for key, api in ADDRESSES.items():
        if key in last and split_address(key, last[key].value, "")[0] == "https":
            apis[api] = last[key]
    ssl = last.get("enable_grpc_ssl")
    if ssl is not None and ssl.value.strip().lower() == "true":
        apis.update(dict.fromkeys(GRPC_APIS, ssl))
    if apis:
        target = result.forced if any(entry.forced for entry in apis.values()) else result.values
        target.append(Given("tls.apis", tuple(apis), [*apis.values()][-1].source))


def _system_metrics(entry: Entry, result: FromProperties) -> Iterator[Given]:
    yield Given("metrics.system", _opposite(entry, result), entry.source)


def _no_tokens(entry: Entry, result: FromProperties) -> Iterator[Given]:
    tokens = _opposite(entry, result)
    yield Given("auth.tokens", tokens, entry.source)
    yield Given("server.insecure", "false" if tokens == "true" else "true", entry.source)


def _debug(entry: Entry, result: FromProperties) -> Iterator[Given]:
    yield Given("defaults.startup_workers", 1 if _flag(entry, result) == "true" else 0, entry.source)


def _grpc_ssl(entry: Entry, result: FromProperties) -> Iterator[Given]:
    _flag(entry, result)  # for its note; the list is made by _tls
    return iter(())


def _metrics_mode(entry: Entry, result: FromProperties) -> Iterator[Given]:
    yield Given("metrics.mode", "".join(entry.value.split()).lower(), entry.source)


def _models(entry: Entry, result: FromProperties) -> Iterator[Given]:
    result.models = read_models(entry.value, entry.source)
    result.notes += result.models.notes
    return iter(())


def _snapshot(entry: Entry, result: FromProperties) -> Iterator[Given]:
    result.model_snapshot = read_snapshot(entry.value, entry.source)
    return iter(())


_TRANSLATED: Mapping[str, Callable[[Entry, FromProperties], Iterator[Given]]] = {
    **dict.fromkeys(ADDRESSES, _address),
    "disable_system_metrics": _system_metrics,
    "disable_token_authorization": _no_tokens,
    "debug": _debug,
    "enable_grpc_ssl": _grpc_ssl,
    "metrics_mode": _metrics_mode,
    "models": _models,
    "model_snapshot": _snapshot,
}
TRANSLATED_FIELDS = {
    **{f"server.{api}_port": key for key, api in ADDRESSES.items()},
    "server.host": "inference_address",
    "server.management_host": "management_address",
    "server.metrics_host": "metrics_address",
    "metrics.system": "disable_system_metrics",
    "auth.tokens": "disable_token_authorization",
    "server.insecure": "disable_token_authorization",
    "defaults.startup_workers": "debug",
    "tls.apis": "enable_grpc_ssl",
}
"""Field -> the key that is translated to it, for the reference."""
_PLAIN = {item.torchserve: item for item in all_options() if item.torchserve and item.torchserve not in _TRANSLATED}
