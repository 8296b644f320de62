"""The settings tree: every setting of the server with its default, in frozen sections.

Sections are passed down to the parts that need them and never read as globals. Times are in seconds unless the name
says otherwise, sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mlserve.settings.access import AuthSettings, CorsSettings, TlsSettings
from mlserve.settings.models import DefaultsSettings, ModelOverrides, ModelsSettings
from mlserve.settings.option import Option, option, options
from mlserve.settings.processes import WorkersSettings

UNIX, LOOPBACK = "unix:", "127.0.0.1"
_PORT = {"low": 0, "high": 65535}
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class ServerSettings:
    """Addresses and limits of the front end. Port 0 takes any free port."""

    host: str = option(
        "127.0.0.1",
        "Address that every listener binds to; `unix:/path` is a socket for the inference API.",
        flag="--host",
    )
    management_host: str = option("", "Address, or `unix:/path`, of the management API; empty = `server.host`.")
    metrics_host: str = option("", "Address, or `unix:/path`, of the metrics API; empty = `server.host`.")
    grpc_inference_host: str = option(
        "", "Address of the gRPC inference API; empty = `server.host`.", torchserve="grpc_inference_address"
    )
    grpc_management_host: str = option(
        "", "Address of the gRPC management API; empty = `server.host`.", torchserve="grpc_management_address"
    )
    inference_port: int = option(8080, "Port of the inference API.", flag="--inference-port", **_PORT)
    management_port: int = option(8081, "Port of the management API.", flag="--management-port", **_PORT)
    metrics_port: int = option(8082, "Port of the metrics API.", flag="--metrics-port", **_PORT)
    grpc_inference_port: int = option(
        7070,
        "Port of the gRPC inference API.",
        flag="--grpc-inference-port",
        torchserve="grpc_inference_port",
        **_PORT,
    )
    grpc_management_port: int = option(
        7071,
        "Port of the gRPC management API.",
        flag="--grpc-management-port",
        torchserve="grpc_management_port",
        **_PORT,
    )
    insecure: bool = option(
        False,
        "Listen on addresses other than loopback although nothing asks callers who they are.",
        flag="--insecure",
    )
    fast_lane: bool = option(True, "Serve plain inference requests by the short path in front of the HTTP server.")
    max_request_size: int = option(
        64 << 20, "Largest request body.", kind="size", low=1, unit="bytes", torchserve="max_request_size"
    )
    max_response_size: int = option(
        64 << 20, "Largest answer of a model.", kind="size", low=1, unit="bytes", torchserve="max_response_size"
    )
    max_header_size: int = option(
        64 << 10, "Largest request line and headers together.", kind="size", low=1024, high=16 << 20, unit="bytes"
    )
    max_connections: int = option(
        10_000,
        "Connections that an address holds at once; those beyond it are answered 503. 0 = any number.",
        low=0,
    )
    max_request_memory: int = option(
        0,
        "Request bodies that are held at once, all together, but for those that came in one piece; requests beyond it "
        "are answered 503. 0 = a quarter of the memory that the machine has, or the container may use.",
        kind="size",
        low=0,
        unit="bytes",
    )
    header_timeout: float = option(
        30.0, "How long a client may take to send its headers, and between two pieces of a body.", low=0.001, unit="s"
    )
    keep_alive_timeout: float = option(75.0, "How long an idle connection is kept.", low=0, unit="s")
    shutdown_grace: float = option(
        30.0, "How long requests that are under way may take to end at shutdown.", low=0, unit="s"
    )
    server_timing: bool = option(False, "Answer with a `Server-Timing` header that holds the phase timings.")
    echo_request_id: bool = option(True, "Take a client's `x-request-id` as the request's id instead of making one.")
    infer_content_type: bool = option(True, "Set an answer's content type from its kind where the handler set none.")
    error_detail: str = option(
        "summary",
        "How much of a handler's failure a client is told.",
        choices=("none", "summary", "traceback"),
    )
    handler_error_status: int = option(500, "HTTP status of a request whose handler failed.", low=400, high=599)
    typed_form_fields: bool = option(
        True, "Decode a field of a multipart form by its own content type, even if it is no file."
    )
    http_style: str = option(
        "mlserve",
        "Form of answers: `torchserve` sends its texts and no-cache headers, an empty 413, and closes after errors.",
        choices=("mlserve", "torchserve"),
    )
    open_inference: bool = option(
        False,
        "Serve the Open Inference Protocol's server routes under `/v2` and its gRPC service.",
        torchserve="ts_open_inference_protocol",
    )
    healthy_while_retrying: bool = option(
        False, "Count a worker that died as healthy for as long as it is started again (`max_retry_timeout`)."
    )
    sequence_id_header: str = option(
        "ts_request_sequence_id", "Header with a request's sequence.", torchserve="ts_header_key_sequence_id"
    )
    sequence_start_header: str = option(
        "ts_request_sequence_start", "Header that opens a sequence.", torchserve="ts_header_key_sequence_start"
    )
    sequence_end_header: str = option(
        "ts_request_sequence_end", "Header that ends sequences.", torchserve="ts_header_key_sequence_end"
    )
    pid_file: str = option("", "Where the pid file is; empty = in the temporary directory.", flag="--pid-file")
    temp_directory: str = option("", "Where models are unpacked; empty = in the temporary directory.")

    def address(self, api: str) -> tuple[str, int]:
        """(host, port) of ``inference``, ``management``, ``metrics``, ``grpc_inference`` or ``grpc_management``.

        A host that starts with ``unix:`` is a socket's path, without a port (0). APIs of one address share a listener.
        """
        own = self.host if api == "inference" else getattr(self, f"{api}_host")
        host = own or (LOOPBACK if self.host.startswith(UNIX) else self.host)
        return host, 0 if host.startswith(UNIX) else int(getattr(self, f"{api}_port"))


@dataclass(frozen=True)
class GpuSettings:
    """Which GPUs workers may use."""

    ids: tuple[int, ...] | None = option(
        None, "Physical ids such as `0,1`; `auto` = those found; `none` = CPU only.", flag="--gpus", kind="gpu_ids"
    )
    limit: int = option(
        -1, "Use at most this many of the GPUs of `gpu.ids`; -1 = all.", low=-1, torchserve="number_of_gpu"
    )


@dataclass(frozen=True)
class LogSettings:
    """What is logged, how and where."""

    level: str = option(
        "info", "Least level that is logged.", flag="--log-level", choices=("debug", "info", "warning", "error")
    )
    format: str = option(
        "text", "Form of log and access lines.", flag="--log-format", choices=("text", "json", "torchserve")
    )
    access_log: str = option("-", "One line per request: `-` = standard error, `off`, or a file.", flag="--access-log")
    directory: str = option("", "Directory of TorchServe's log files; empty = none are written.")
    metrics_directory: str = option(
        "", "Directory of `ts_metrics.log` and `model_metrics.log`; empty = `log.directory`."
    )
    telemetry: str = option(
        "", "Any text: TorchServe's log gets a `ModelServerError` line for each failure of the server with a worker."
    )


@dataclass(frozen=True)
class MetricsSettings:
    """The Prometheus endpoint."""

    enabled: bool = option(True, "Serve `/metrics`.", torchserve="enable_metrics_api")
    system: bool = option(True, "Report CPU, memory and GPU of the machine.")
    mode: str = option(
        "prometheus",
        "`prometheus`: metrics are scraped; `log`: they go to log files; `legacy`: both, as TorchServe before 0.6.",
        choices=("prometheus", "log", "legacy"),
        torchserve="metrics_mode",
    )
    families: str = option(
        "mlserve",
        "Which metrics there are: mlserve's, TorchServe's (`ts_*`), or both.",
        choices=("mlserve", "torchserve", "both"),
    )
    config: str = option("", "TorchServe's metrics.yaml; empty = its default set.", torchserve="metrics_config")
    auto_detect: bool = option(
        True, "Keep metrics of handlers that `metrics.config` does not declare.", torchserve="model_metrics_auto_detect"
    )
    interval: float = option(
        60.0, "How often the machine is measured for `log` mode.", low=0.1, unit="s", torchserve="metric_time_interval"
    )
    system_command: str = option(
        "",
        "Python script with arguments that is run each `metrics.interval` and prints the machine's metrics as "
        "TorchServe's collector does; empty = the server measures itself.",
        torchserve="system_metrics_cmd",
    )


@dataclass(frozen=True)
class GrpcSettings:
    """The gRPC APIs. Their addresses are in `[server]`; connection ages are unlimited at 0."""

    enabled: bool = option(True, "Serve gRPC.", flag="--grpc")
    inference_max_connection_age_ms: int = option(
        0,
        "Close inference connections of this age.",
        low=0,
        unit="ms",
        torchserve="grpc_inference_max_connection_age_ms",
    )
    inference_max_connection_age_grace_ms: int = option(
        0,
        "Time that their calls get to end.",
        low=0,
        unit="ms",
        torchserve="grpc_inference_max_connection_age_grace_ms",
    )
    management_max_connection_age_ms: int = option(
        0,
        "Close management connections of this age.",
        low=0,
        unit="ms",
        torchserve="grpc_management_max_connection_age_ms",
    )
    management_max_connection_age_grace_ms: int = option(
        0,
        "Time that their calls get to end.",
        low=0,
        unit="ms",
        torchserve="grpc_management_max_connection_age_grace_ms",
    )


SECTIONS: Mapping[str, type] = {
    "server": ServerSettings,
    "models": ModelsSettings,
    "defaults": DefaultsSettings,
    "gpu": GpuSettings,
    "log": LogSettings,
    "metrics": MetricsSettings,
    "workers": WorkersSettings,
    "grpc": GrpcSettings,
    "tls": TlsSettings,
    "auth": AuthSettings,
    "cors": CorsSettings,
}


@dataclass(frozen=True)
class Settings:
    """All settings, and where each value came from.

    ``model`` maps a model's name, or ``name:version``, to overrides by specification field. ``sources`` maps
    ``server.host`` (or ``model.NAME.batch_size``) to ``default``, ``env MLSERVE_SERVER_HOST``, ``flag --host`` or
    ``mlserve.toml:12``. ``profile`` is the named table that the values start from (:mod:`mlserve.settings.profiles`),
    empty for mlserve's own defaults. ``notes`` are things the reader of the start-up log should know about the sources.

    Three come from a TorchServe configuration only. ``properties`` are its keys as written, those without meaning
    here too, because snapshots keep them. ``model_snapshot`` holds the models of a snapshot that is restored instead of
    loading ``models.load``; ``None`` = there is none. ``default_versions`` maps models to the versions that the key
    ``models`` calls their default.
    """

    server: ServerSettings = ServerSettings()
    models: ModelsSettings = field(default_factory=ModelsSettings)
    defaults: DefaultsSettings = field(default_factory=DefaultsSettings)
    gpu: GpuSettings = GpuSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    workers: WorkersSettings = field(default_factory=WorkersSettings)
    grpc: GrpcSettings = GrpcSettings()
    tls: TlsSettings = field(default_factory=TlsSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    cors: CorsSettings = field(default_factory=CorsSettings)
    profile: str = ""
    model: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _EMPTY)
    sources: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    notes: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    model_snapshot: Mapping[str, Any] | None = None
    default_versions: Mapping[str, str] = field(default_factory=lambda: _EMPTY)


def all_options() -> Iterator[Option]:
    """Every option of the tree, section by section."""
    for section, cls in SECTIONS.items():
        yield from options(section, cls)


def model_options() -> dict[str, Option]:
    """The options of a ``[model.NAME]`` table, by name."""
    return {item.name: item for item in options("model", ModelOverrides)}
