"""The settings in effect as a ``config.properties``: what a snapshot holds, so that TorchServe could read it too.

Keys that the configuration gave keep their text unless something else (a flag, a variable) decided otherwise; keys it
did not give are added where the value is neither a default nor the profile's. What has no key at TorchServe is left to
where it came from, and so is a password: who gave it in the environment did not want it in a file.
"""

from __future__ import annotations

from mlserve.settings.option import Option
from mlserve.settings.torchserve import ADDRESSES, GRPC_APIS, TRANSLATED_FIELDS, split_address
from mlserve.settings.tree import UNIX, Settings, all_options
from mlserve.settings.values import convert, written


def to_properties(settings: Settings) -> dict[str, str]:
    """TorchServe's key -> text. Reading it gives the same values for every field that has a key there."""
    result = dict(settings.properties)
    for item in all_options():
        if item.torchserve and item.key not in TRANSLATED_FIELDS and not item.secret:
            value = getattr(getattr(settings, item.section), item.name)
            if not _says(item, result.get(item.torchserve), value, settings):
                result[item.torchserve] = written(value)
    for key, api in ADDRESSES.items():
        address = _address(settings, api)
        given = split_address(key, result[key], "snapshot") if key in result else None
        if given != address and (given or _is_set(settings, f"server.{_host(api)}", f"server.{api}_port")):
            scheme, host, port = address
            result[key] = host if scheme == "unix" else f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    for key, field, value in (
        ("disable_token_authorization", "auth.tokens", not settings.auth.tokens),
        ("disable_system_metrics", "metrics.system", not settings.metrics.system),
        ("enable_grpc_ssl", "tls.apis", set(GRPC_APIS) <= set(settings.tls.apis)),
    ):
        if _is_set(settings, field) and (result.get(key, "").strip().lower() == "true") != value:
            result[key] = written(value)
    return result


def _says(item: Option, text: str | None, value: object, settings: Settings) -> bool:
    """Whether the key, or its absence, leads to the value already."""
    if text is None:
        return not _is_set(settings, item.key)
    if item.kind == "bool":
        return (text.strip().lower() == "true") is value
    return bool(convert(item, text) == value)


def _is_set(settings: Settings, *keys: str) -> bool:
    """Whether a source other than the defaults set one of the fields."""
    return any(not settings.sources.get(key, "default").startswith(("default", "profile ")) for key in keys)


def _host(api: str) -> str:
    return "host" if api == "inference" else f"{api}_host"


def _address(settings: Settings, api: str) -> tuple[str, str, int]:
    host, port = settings.server.address(api)
    if host.startswith(UNIX):
        return "unix", host, 0
    return "https" if api in settings.tls.apis else "http", host, port
