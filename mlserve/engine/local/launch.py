"""What a worker process is started with: its command line, its environment and its first frame.

Everything that must be set before a library is imported (the visible device, thread counts) goes by the environment,
because nothing later can change it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlserve.core.model import ModelSpec
from mlserve.engine.local.environment import base_environment
from mlserve.settings import Settings

if TYPE_CHECKING:
    from mlserve.wire.payload import Load, MetricDeclaration

_PLACE = ["@place"]  # in the CPU launcher's command, until it is known which of how many workers it is for
DEVICES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True)
class LoadOptions:
    """How workers treat requests, where that is the server's choice and not the model's. Sizes in bytes."""

    limit_max_image_pixels: bool = True
    decode_input: bool = True
    reject_invalid_json: bool = True
    infer_content_type: bool = True
    max_response_size: int = 64 << 20
    strict_results: bool = False
    service_envelope: str = ""
    sequence_id_header: str = "ts_request_sequence_id"
    sequence_start_header: str = "ts_request_sequence_start"
    sequence_end_header: str = "ts_request_sequence_end"
    handler_times: bool = False
    block_env: str = ""  # regular expression: variables with such a name are kept from workers
    ipex: bool = False
    ipex_gpu: bool = False
    cpu_launcher: bool = False
    cpu_launcher_args: str = ""
    retry_first_load: bool = False  # start a worker again that could not load the model the first time
    first_retry_wait: float = 0.0  # seconds between a worker's death and its next start
    metrics: tuple[MetricDeclaration, ...] = ()  # that handlers find declared
    log_format: str = "text"
    log_directory: str = ""  # where torchrun writes its own logs; empty = nowhere


def load_options(settings: Settings) -> LoadOptions:
    """The options that ``settings`` amount to."""
    return LoadOptions(
        limit_max_image_pixels=settings.models.limit_max_image_pixels,
        decode_input=settings.defaults.decode_input,
        reject_invalid_json=settings.defaults.reject_invalid_json,
        infer_content_type=settings.server.infer_content_type,
        max_response_size=settings.server.max_response_size,
        strict_results=settings.defaults.strict_results,
        service_envelope=settings.models.envelope,
        sequence_id_header=settings.server.sequence_id_header,
        sequence_start_header=settings.server.sequence_start_header,
        sequence_end_header=settings.server.sequence_end_header,
        handler_times=settings.metrics.families != "mlserve",
        block_env=settings.workers.block_env,
        ipex=settings.workers.ipex,
        ipex_gpu=settings.workers.ipex_gpu,
        cpu_launcher=settings.workers.cpu_launcher,
        cpu_launcher_args=settings.workers.cpu_launcher_args,
        retry_first_load=settings.workers.retry_first_load,
        first_retry_wait=settings.workers.first_retry_wait,
        log_format=settings.log.format,
        log_directory=settings.log.directory,
    )


def ranks(spec: ModelSpec) -> int:
    """How many processes torchrun starts for one worker; 0 where a worker is one process that we start ourselves."""
    if spec.parallel_type not in ("pp", "tp", "pptp"):
        return 0
    count = spec.torchrun.get("nproc-per-node", 1)
    return count if isinstance(count, int) and count > 0 else 1


def devices_per_worker(spec: ModelSpec) -> int:
    """How many GPUs one worker gets."""
    return ranks(spec) or max(1, spec.parallel_level)


def worker_command(spec: ModelSpec, options: LoadOptions | None = None) -> list[str]:
    """The command that starts the child program; the engine appends the file descriptors.

    What needs another program in between, which would not pass descriptors on, is started by ``mlserve.worker.group``.
    """
    python = spec.python or sys.executable
    count = ranks(spec)
    if count:
        launch = json.dumps(torchrun_command(spec, python, options))
        how = "all" if spec.parallel_type == "tp" else "first"
        return [python, "-m", "mlserve.worker.group", "--ranks", str(count), "--batches", how, "--launch", launch]
    if options is not None and options.cpu_launcher:
        words = [python, "-m", "torch.backends.xeon.run_cpu", *options.cpu_launcher_args.split()]
        launch = json.dumps([*words, *_PLACE, "--no-python", python])
        return [python, "-m", "mlserve.worker.group", "--ranks", "1", "--launch", launch]
    return [python, "-m", "mlserve.worker"]


def placed(command: Sequence[str], index: int, workers: int) -> list[str]:
    """``command`` of worker ``index`` of ``workers``: the CPU launcher gives each its share of the cores."""
    return [
        word.replace(
            f", {json.dumps(_PLACE)[1:-1]}", "" if workers < 2 else ", " + json.dumps(_place(index, workers))[1:-1]
        )
        for word in command
    ]


def _place(index: int, workers: int) -> list[str]:
    return ["--ninstances", str(workers), "--rank", str(index % workers)]


def torchrun_command(spec: ModelSpec, python: str, options: LoadOptions | None) -> list[str]:
    """torchrun's command line up to the module to run. The keys of ``torchrun:`` are its own flags."""
    given = spec.torchrun
    words = [python, "-m", "torch.distributed.run", "--nnodes", str(given.get("nnodes", 1))]
    words += ["--nproc-per-node", str(ranks(spec)), "--max-restarts", "0"]
    if options is not None and options.log_directory:
        words += ["--log-dir", str(Path(options.log_directory).absolute() / "torchelastic_ts")]
    if given.get("rdzv-endpoint") or given.get("master-addr"):
        words += ["--rdzv-backend", str(given.get("rdzv-backend", "c10d"))]
    else:
        words.append("--standalone")  # picks a free port, where the default one is the same for all groups of a host
    for key in ("rdzv-endpoint", "rdzv-conf", "master-addr", "master-port", "node-rank", "monitor-interval"):
        if given.get(key) not in (None, ""):
            words += [f"--{key}", str(given[key])]
    return words


def load_message(spec: ModelSpec, gpu_ids: Sequence[int], options: LoadOptions, worker_id: int = 0) -> Load:
    """The LOAD frame. A pinned worker sees its own GPUs only, so its handler is told 0."""
    from mlserve.wire.payload import Load  # msgspec: not before the first worker's process runs

    return Load(
        model_name=spec.key.name,
        model_version=spec.key.version,
        model_dir=spec.model_dir,
        handler=spec.handler,
        manifest=dict(spec.manifest),
        config=dict(spec.config),
        gpu_id=0 if gpu_ids else None,
        batch_size=spec.batch_size,
        limit_max_image_pixels=options.limit_max_image_pixels,
        decode_input=options.decode_input,
        reject_invalid_json=options.reject_invalid_json,
        isolate_errors=spec.isolate_errors,
        infer_content_type=options.infer_content_type,
        max_response_size=options.max_response_size,
        strict_results=options.strict_results,
        service_envelope=options.service_envelope,
        sequence_id_header=options.sequence_id_header,
        sequence_start_header=options.sequence_start_header,
        sequence_end_header=options.sequence_end_header,
        handler_times=options.handler_times,
        async_communication=spec.async_communication,
        continuous_batching=spec.continuous_batching,
        worker_id=worker_id,
        metrics=list(options.metrics),
        preprocess_threads=spec.preprocess_threads,
        handler_threads=spec.handler_threads,
        own_files=spec.owned_dir,
    )


def worker_env(
    spec: ModelSpec,
    gpu_ids: Sequence[int],
    cpus: float,
    workers: int,
    environ: Mapping[str, str] | None = None,
    options: LoadOptions | None = None,
) -> dict[str, str]:
    """The child's environment: the server's own with paths, device and threads set.

    ``workers`` is how many workers share the ``cpus``; the handler's threads share what
    one of them gets. Thread counts that the user set stay, unless the model's ``threads_per_worker`` says otherwise.
    """
    options = options or LoadOptions()
    given = os.environ if environ is None else environ
    if options.block_env:
        blocked = re.compile(options.block_env)
        given = {name: value for name, value in given.items() if not blocked.fullmatch(name)}
    env = base_environment(given, spec.python)
    # What TorchServe tells its handlers.
    env["TS_DECODE_INPUT_REQUEST"] = "true" if options.decode_input else "false"
    env["TS_IPEX_ENABLE"] = "true" if options.ipex else "false"
    env["TS_IPEX_GPU_ENABLE"] = "true" if options.ipex_gpu else "false"
    if not gpu_ids:
        env["CUDA_VISIBLE_DEVICES"] = ""
    else:
        env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # NVML's order, in which the ids were found
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpu_ids))
    if ranks(spec):
        env["OMP_NUM_THREADS"] = str(spec.torchrun.get("OMP_NUMBER_THREADS", 1))
    elif spec.threads_per_worker:
        env.update(dict.fromkeys(THREADS, str(max(1, spec.threads_per_worker // spec.handler_threads))))
    elif "OMP_NUM_THREADS" not in env:
        threads = str(max(1, int(cpus / max(1, workers) / spec.handler_threads)))
        for name in THREADS:
            env.setdefault(name, threads)
    return env
