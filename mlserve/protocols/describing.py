"""What the management API tells of models and workers, as JSON values: TorchServe's keys in its order, then our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import orjson

from mlserve.core.model import ModelDescription, ModelSpec, SpareInfo, WorkerInfo
from mlserve.gpus import read_gpu
from mlserve.protocols.management import ListCall

_TOLD_WHERE_SET = {
    "job_queue_size": "jobQueueSize",
    "retry_on_worker_death": "retryOnWorkerDeath",
    "isolate_errors": "isolateErrors",
    "threads_per_worker": "threadsPerWorker",
    "preprocess_threads": "preprocessThreads",
    "handler_threads": "handlerThreads",
    "async_communication": "asyncCommunication",
}
"""Settings that TorchServe does not tell -> their keys, shown where a source of the model's own sets them."""


def list_json(models: Sequence[tuple[str, str]], call: ListCall) -> dict[str, Any]:
    """A page of (name, url) pairs. The token is there up to and including an exactly full last page."""
    end = call.offset + call.limit
    page: dict[str, Any] = {"nextPageToken": str(end)} if end <= len(models) else {}
    page["models"] = [{"modelName": name, "modelUrl": url} for name, url in models[call.offset : end]]
    return page


def customized_json(body: bytes | memoryview) -> dict[str, Any]:
    """What a handler said of itself, for :func:`describe_json`; anything but a JSON object counts as nothing said."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def describe_json(
    model: ModelDescription,
    gpus: Mapping[int, str] | None = None,
    customized: Mapping[str, Any] | None = None,
    spares: Sequence[SpareInfo] = (),
) -> dict[str, Any]:
    """One element of the describe answer: TorchServe's keys in its order, then mlserve's own.

    ``gpus`` maps physical GPU ids to :func:`gpu_usage`; ``customized`` is what the handler said; ``spares`` wait for
    any model of the server that they suit.
    """
    spec = model.spec
    in_sequences = spec.sequence_batching and spec.sequence_max_idle_ms > 0  # else TorchServe ignores the numbers
    return {
        "modelName": spec.key.name,
        "modelVersion": spec.key.version,
        "modelUrl": spec.url,
        "runtime": spec.runtime,
        "minWorkers": spec.min_workers,
        "maxWorkers": spec.max_workers,
        "batchSize": spec.batch_size,
        "maxBatchDelay": _plain(spec.max_batch_delay_ms),
        "responseTimeout": _plain(spec.response_timeout),
        "startupTimeout": _plain(spec.startup_timeout),
        "maxRetryTimeoutInSec": _plain(spec.max_retry_timeout),
        "clientTimeoutInMills": _plain(spec.client_timeout_ms),
        "parallelType": spec.parallel_type,
        "parallelLevel": spec.parallel_level,
        "deviceType": _device_type(spec, model.workers),
        **({"deviceIds": list(spec.device_ids)} if _has_own_gpus(spec, model.workers) else {}),
        "continuousBatching": spec.continuous_batching,
        "useJobTicket": spec.use_job_ticket,
        "useVenv": spec.use_venv or bool(spec.python),
        "stateful": spec.sequence_batching,
        "sequenceMaxIdleMSec": spec.sequence_max_idle_ms,
        "sequenceTimeoutMSec": spec.sequence_timeout_ms if in_sequences else 0,
        "maxNumSequence": spec.max_num_sequence if in_sequences else 0,
        "maxSequenceJobQueueSize": spec.max_sequence_job_queue_size if in_sequences else 0,
        "loadedAtStartup": spec.loaded_at_startup,
        "workers": [worker_json(worker, gpus or {}) for worker in model.workers],
        "jobQueueStatus": {
            "remainingCapacity": max(0, spec.job_queue_size - model.pending),
            "pendingRequests": model.pending,
        },
        **({"customizedMetadata": customized} if customized is not None else {}),
        "state": model.state,
        "defaultVersion": model.is_default,
        "batchPolicy": spec.batch_policy,
        **({"latencyTarget": spec.latency_target_ms} if spec.latency_target_ms else {}),
        **{
            key: getattr(spec, name)
            for name, key in _TOLD_WHERE_SET.items()
            if spec.provenance.get(name, "default") != "default"
        },
        **next(({"signature": dict(worker.signature)} for worker in model.workers if worker.signature), {}),
        **({"spareWorkers": [spare_json(spare) for spare in spares]} if spares else {}),
        "lastError": model.last_error,
        "provenance": dict(spec.provenance),
    }


def worker_json(worker: WorkerInfo, gpus: Mapping[int, str]) -> dict[str, Any]:
    """One worker of the describe answer."""
    gpu = worker.gpu_id
    return {
        "id": str(worker.worker_id),
        "startTime": timestamp(worker.started_at),
        "status": "READY" if worker.state.upper() == "READY" else "UNLOADING",
        "memoryUsage": worker.memory_bytes,
        "pid": worker.pid,
        "gpu": gpu is not None,
        "gpuUsage": "N/A" if gpu is None else gpus.get(gpu, "N/A"),
        "state": worker.state,
        "device": worker.device,
        "restarts": worker.restarts,
        "lastExit": worker.last_exit,
        "traceback": worker.traceback,
        "logTail": list(worker.log_tail)[-50:],
    }


def spare_json(spare: SpareInfo) -> dict[str, Any]:
    """One spare worker of the describe answer. Memory is its share: pages that others map as well are divided."""
    return {
        "pid": spare.pid,
        "state": spare.state,
        "packages": list(spare.packages),
        "memoryUsage": spare.memory_bytes,
        "memoryShare": spare.proportional_bytes,
    }


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds, as ``2026-11-21T08:03:23.004Z``; ``seconds`` since the epoch."""
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _plain(value: float) -> int | float:
    """Whole numbers without a decimal point: TorchServe's clients parse integers here."""
    return int(value) if float(value).is_integer() else value


def _device_type(spec: ModelSpec, workers: Sequence[WorkerInfo]) -> str:
    """What the workers run on, as far as there are any: a model may ask for a GPU where there is none."""
    if not workers:
        return spec.device_type or "cpu"
    return "gpu" if any(worker.gpu_id is not None for worker in workers) else "cpu"


def _has_own_gpus(spec: ModelSpec, workers: Sequence[WorkerInfo]) -> bool:
    """Whether ``device_ids`` counts: a list with a GPU that is not there is left out as a whole."""
    return bool(spec.device_ids) and (not workers or any(worker.gpu_id in spec.device_ids for worker in workers))


def gpu_usage(gpu: int) -> str:
    """TorchServe's one-line text about a physical GPU, ``N/A`` where it cannot be read. May block for milliseconds."""
    reading = read_gpu(gpu)
    if reading is None:
        return "N/A"
    return (
        f"gpuId::{gpu} utilization.gpu::{reading.utilization * 100:.0f} % "
        f"utilization.memory::{reading.memory_utilization * 100:.0f} % memory.used::{reading.memory_used >> 20} MiB"
    )
