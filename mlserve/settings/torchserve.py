"""TorchServe's ``config.properties`` on this tree: which key sets which field, and what is said about the rest.

Keys that set one field as it is are declared with the field (``torchserve=`` in the tree). Here are those that need
translating, and the known keys that have no meaning here. TorchServe keeps unknown keys, so they are notes, not errors;
a value that would change what is exposed (https, unix sockets) is an error, because ignoring it would not be safe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mlserve.errors import SettingError
from mlserve.settings.tree import all_options

Property = tuple[str, str, int]  # key, value, line


class Given(NamedTuple):
    """A value for ``key`` (``section.field``) as one source holds it, and the source in words."""

    key: str
    value: Any
    source: str


class FromProperties(NamedTuple):
    """What a ``config.properties`` says. ``models`` maps ``name:version`` to (field -> Given)."""

    values: list[Given]
    models: dict[str, dict[str, Given]]
    notes: list[str]


ADDRESSES = {"inference_address": "inference", "management_address": "management", "metrics_address": "metrics"}
MODEL_KEYS = {
    "minWorkers": "min_workers",
    "maxWorkers": "max_workers",
    "batchSize": "batch_size",
    "maxBatchDelay": "max_batch_delay_ms",
    "responseTimeout": "response_timeout",
    "startupTimeout": "startup_timeout",
}
_JAVA = "it tunes the Java server"
_TLS = "the server speaks plain HTTP; put TLS in front of it"
_TOKENS = "there are no tokens"
_SNAPSHOTS = "snapshots are neither written nor restored"
_GRPC = "it has no counterpart in the gRPC server here"
_METRICS = "metrics are always served in Prometheus form, without a configuration file"
_CPU = "threads per worker are set by defaults.threads_per_worker"
_SEQUENCES = "stateful sequences are not supported"
_CORS = "no access-control headers are sent"
IGNORED = {
    **dict.fromkeys(("number_of_netty_threads", "netty_client_threads", "prefer_direct_buffer"), _JAVA),
    **dict.fromkeys(("use_native_io", "io_ratio", "vmargs", "async_logging", "model_server_home"), _JAVA),
    **dict.fromkeys(("keystore", "keystore_pass", "keystore_type"), _TLS),
    **dict.fromkeys(("private_key_file", "certificate_file", "enable_grpc_ssl"), _TLS),
    **dict.fromkeys(("cors_allowed_origin", "cors_allowed_methods", "cors_allowed_headers"), _CORS),
    **dict.fromkeys(("model_snapshot", "version", "python", "tsConfigFile"), _SNAPSHOTS),
    **dict.fromkeys(
        (
            "grpc_inference_address",
            "grpc_management_address",
            "grpc_inference_max_connection_age_ms",
            "grpc_inference_max_connection_age_grace_ms",
            "grpc_management_max_connection_age_ms",
            "grpc_management_max_connection_age_grace_ms",
        ),
        _GRPC,
    ),
    **dict.fromkeys(("metrics_config", "metrics_mode", "model_metrics_auto_detect"), _METRICS),
    **dict.fromkeys(("system_metrics_cmd", "metric_time_interval"), "system metrics are read when they are asked for"),
    **dict.fromkeys(("cpu_launcher_enable", "cpu_launcher_args", "ipex_enable", "ipex_gpu_enable"), _CPU),
    **dict.fromkeys(
        ("ts_header_key_sequence_id", "ts_header_key_sequence_start", "ts_header_key_sequence_end"), _SEQUENCES
    ),
    **dict.fromkeys(("initial_worker_port", "initial_distribution_port"), "workers need no ports"),
    "token_expiration_min": _TOKENS,
    "workflow_store": "workflows are not supported",
    "unregister_model_timeout": "unregistering answers the accepted requests first",
    "limit_max_image_pixels": "handlers are always told to limit the pixels of an image",
    "service_envelope": "handlers get bodies as they are",
    "blacklist_env_vars": "workers inherit the server's environment",
    "use_env_allowed_urls": "MLSERVE_MODELS_ALLOWED_URLS is always read",
    "enable_envvars_config": "MLSERVE_* variables are always read, TS_* variables never",
    "install_py_dep_per_model": "requirements are not installed when a model is loaded",
    "ts_open_inference_protocol": "there is no switch for it",
    "debug": "use log.level",
    "cpp_log_config": "there is no C++ backend",
    "plugins_path": "Java plugins cannot be loaded",
}


def map_properties(entries: Iterable[Property], name: str) -> FromProperties:
    """Translate the entries of the file ``name``.

    Raises :class:`SettingError`, with the line, for an address or ``models`` value that cannot be translated. Single
    values are not checked here: the caller converts them like any other source's.
    """
    plain = {item.torchserve: item.key for item in all_options() if item.torchserve}
    result = FromProperties([], {}, [])
    for key, value, line in entries:
        source = f"{name}:{line}"
        if key in plain:
            result.values.append(Given(plain[key], value, source))
        elif key in ADDRESSES:
            result.values.extend(_address(key, value, source))
        elif key == "disable_system_metrics":
            result.values.append(Given("metrics.system", _inverted(value), source))
        elif key == "models":
            _models(value, source, result)
        elif key in IGNORED:
            result.notes.append(f"{source}: {key} is accepted and ignored: {IGNORED[key]}")
        else:
            result.notes.append(f"{source}: {key} is not a setting of TorchServe or mlserve and is ignored")
    return result


def _inverted(value: str) -> str:
    return {"true": "false", "false": "true"}.get(value.strip().lower(), value)


def _address(key: str, value: str, source: str) -> Iterator[Given]:
    api = ADDRESSES[key]
    try:
        parts = urlsplit(value.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme in ("https", "unix"):
        what = _TLS if parts.scheme == "https" else "unix sockets are not supported"
        raise SettingError(f"{source}: {key}: {value!r} cannot be served: {what}")
    if parts.scheme != "http" or not host or parts.path not in ("", "/"):
        raise SettingError(f"{source}: {key}: expected an address such as http://127.0.0.1:8080, got {value!r}")
    yield Given("server.host" if api == "inference" else f"server.{api}_host", host, source)
    yield Given(f"server.{api}_port", 80 if port is None else port, source)


def _models(value: str, source: str, result: FromProperties) -> None:
    try:
        models = json.loads(value)
    except ValueError as error:
        raise SettingError(f"{source}: models: expected JSON, but {error}") from None
    if not isinstance(models, dict):
        raise SettingError(f"{source}: models: expected a JSON object of models, got {value[:60]!r}")
    for name, versions in models.items():
        if not isinstance(versions, dict) or not all(isinstance(item, dict) for item in versions.values()):
            raise SettingError(f"{source}: models: {name!r} must map each version to an object of settings")
        for version, fields in versions.items():
            table = result.models.setdefault(f"{name}:{version}", {})
            for key, given in fields.items():
                if key in MODEL_KEYS:
                    table[MODEL_KEYS[key]] = Given(f"model.{name}:{version}.{MODEL_KEYS[key]}", given, source)
                else:
                    result.notes.append(f"{source}: models: {key} of {name} {version} is accepted and ignored")
