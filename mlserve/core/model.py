"""What a model version is, and what can be told about it while it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlserve.errors import InvalidInput

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")  # torch-model-archiver's rule for model names


class ModelKey(NamedTuple):
    """A model version's identity."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def check_name(name: str) -> str:
    """Return ``name`` if it can be a model's name, else raise :class:`InvalidInput`."""
    if len(name) > 255 or not NAME.fullmatch(name):
        raise InvalidInput(
            f"Model name {name[:80]!r} is not allowed: use letters, digits, '_', '-', '.'; start with a letter or digit"
        )
    return name


@dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to run a model version. Times are in seconds unless the name says otherwise."""

    key: ModelKey
    model_dir: str  # the unpacked archive; the worker's working directory
    handler: str  # "module", "module:function" or a built-in name
    url: str = ""  # what it was registered from, as the caller wrote it
    manifest: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # model-config.yaml, whole
    runtime: str = "python"
    python: str = ""  # interpreter of the worker; empty = the server's own
    batch_size: int = 1
    max_batch_delay_ms: float = 100.0
    batch_policy: str = "eager"
    latency_target_ms: float = 0.0  # from a request's arrival to its answer, for the policy adaptive; 0 = none
    min_workers: int = 1
    max_workers: int = 1
    job_queue_size: int = 100
    response_timeout: float = 120.0
    startup_timeout: float = 120.0
    max_retry_timeout: float = 300.0
    retry_on_worker_death: int = 1  # how often a request survives the death of its worker
    isolate_errors: bool = True
    device_type: str = ""  # "cpu", "gpu" or "" = gpu where there is one
    device_ids: tuple[int, ...] = ()
    threads_per_worker: int = 0  # 0 = CPUs of the cgroup / workers
    preprocess_threads: int = -1  # batches preprocessed while one computes; -1 = one on a GPU, for built-in handlers
    handler_threads: int = 1  # batches that one worker computes at once, each in a thread of its own
    client_timeout_ms: float = 0.0  # a request that is not answered by then is ended; 0 = none
    use_job_ticket: bool = False  # take a request only if a worker waits for one
    async_communication: bool = False  # the handler is a coroutine; requests go one by one, answers come in any order
    continuous_batching: bool = False
    sequence_batching: bool = False
    sequence_max_idle_ms: int = 0
    sequence_timeout_ms: int = 0  # 0 = none
    max_sequence_job_queue_size: int = 1
    max_num_sequence: int = 1
    parallel_type: str = ""  # "pp", "tp", "pptp", "custom" or "" = one process per worker
    parallel_level: int = 0  # processes (ranks) and devices of one worker
    torchrun: Mapping[str, Any] = field(default_factory=dict)
    use_venv: bool = False  # its requirements go into a virtual environment of its own
    workflow: str = ""  # the workflow that this version is a node of
    listed: bool = True  # in the list of models; functions of workflows are not
    loaded_at_startup: bool = False
    owned_dir: bool = True  # model_dir was made by the store and goes when the version goes
    provenance: Mapping[str, str] = field(default_factory=dict)  # setting -> where its value came from

    @property
    def concurrent(self) -> bool:
        """Whether a worker has its requests side by side: each is a batch of its own, and they end in any order."""
        return self.continuous_batching or self.async_communication


@dataclass
class WorkerInfo:
    """One worker as ``describe`` shows it."""

    worker_id: int
    state: str
    pid: int = -1
    started_at: float = 0.0  # seconds since the epoch
    device: str = "cpu"  # physical: "cpu" or "cuda:3"
    gpu_id: int | None = None  # physical id
    memory_bytes: int = 0
    restarts: int = 0
    last_exit: str = ""  # the reason of the last death, in words
    traceback: str = ""  # of the handler, when loading failed
    log_tail: tuple[str, ...] = ()  # last 50 lines
    signature: Mapping[str, Any] = field(default_factory=dict)  # inputs and outputs, as the handler has them


@dataclass
class SpareInfo:
    """A process that waits to become the next worker, and what it costs meanwhile."""

    pid: int
    state: str  # "starting", "warming" or "warm"
    packages: tuple[str, ...] = ()  # what it has imported or is importing
    memory_bytes: int = 0  # resident, once it is warm
    proportional_bytes: int = 0  # its share of them, pages that others map as well being divided


@dataclass
class ModelDescription:
    """A model version as ``describe`` shows it."""

    spec: ModelSpec
    state: str
    is_default: bool
    workers: list[WorkerInfo]
    pending: int  # requests in the queue
    ready_workers: int
    last_error: str = ""
