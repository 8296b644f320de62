"""Which models there are, and what they get where neither they nor their caller says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from mlserve.settings.option import option


@dataclass(frozen=True)
class ModelsSettings:
    """Which models there are and who may bring more."""

    store: str = option(
        "", "Directory of archives and unpacked models.", flag="--model-store", torchserve="model_store"
    )
    load: tuple[str, ...] = option(
        (),
        "Models to load at start-up: `name=file.mar`, `model.onnx`, a directory, a handler file, or `all`.",
        flag="--models",
        torchserve="load_models",
    )
    bare_files: bool = option(True, "Let `all` load model files and folders that are no archives as well.")
    keep_going: bool = option(False, "Start although a model of `models.load` cannot be loaded.", flag="--keep-going")
    model_api: bool = option(
        True, "Let clients register and unregister models.", flag="--model-api", torchserve="enable_model_api"
    )
    allowed_urls: tuple[str, ...] = option(
        (),
        "Regular expressions (whole URL, any case) of places that models may be fetched from.",
        kind="regexes",
        torchserve="allowed_urls",
    )
    private_urls: bool = option(
        False, "Let patterns of `models.allowed_urls` that match any host reach private addresses as well."
    )
    any_directory: bool = option(
        False, "Let clients register unpacked models outside of `models.store` by their absolute paths."
    )
    default_handler: str = option("", "Handler of archives that name none.", torchserve="default_service_handler")
    start_in_background: bool = option(
        False, "Serve as soon as the models named at start are registered, while their workers still load."
    )
    unregister_timeout: float = option(
        120.0,
        "How long an unregistered version may answer what it has accepted; 0 answers 408.",
        low=0,
        unit="s",
        torchserve="unregister_model_timeout",
    )
    envelope: str = option(
        "",
        "Envelope that requests and answers are wrapped in.",
        choices=("", "body", "json", "kserve", "kservev2"),
        torchserve="service_envelope",
    )
    limit_max_image_pixels: bool = option(
        True, "Tell handlers to refuse images of too many pixels.", torchserve="limit_max_image_pixels"
    )
    workflow_store: str = option(
        "",
        "Directory of workflow archives; empty = `models.store`.",
        flag="--workflow-store",
        torchserve="workflow_store",
    )
    environment_cache: str = option(
        "~/.cache/mlserve/environments",
        "Folder of the virtual environments that models' requirements are installed into, shared by servers; "
        "empty = beside each model, for that model only.",
    )
    offline: bool = option(
        False,
        "Install no package but those that are in `models.environment_cache` or as wheels in the archive.",
        flag="--offline",
    )
    snapshots: bool = option(
        False, "Write the models and settings to a file at each change, and restore the last one.", flag="--snapshots"
    )
    snapshot_directory: str = option(
        "", "Where snapshots are written; empty = `config` in `log.directory`, or in `logs`."
    )


@dataclass(frozen=True)
class DefaultsSettings:
    """What a model gets where neither its own configuration nor ``[model.NAME]`` nor the caller says otherwise."""

    batch_size: int = option(1, "Most requests in one batch.", flag="--batch-size", low=1)
    max_batch_delay_ms: float = option(
        100.0, "Longest wait for a batch to fill.", flag="--max-batch-delay", low=0, unit="ms"
    )
    batch_policy: str = option(
        "eager",
        "`eager`: an idle worker takes what is there; `window`: wait for a full batch or the delay; `adaptive`: as "
        "`eager`, learning what batches cost, to hold `latency_target_ms`; `bucket`: as `eager`, with requests of "
        "similar size in a batch, for models that pad.",
        choices=("adaptive", "bucket", "eager", "window"),
    )
    latency_target_ms: float = option(
        0.0,
        'Longest time from a request\'s arrival to its answer that `batch_policy = "adaptive"` cuts batches for; '
        "0 = none.",
        low=0,
        unit="ms",
    )
    workers: int = option(
        0,
        "Workers per model; 0 = one per GPU (one without GPUs) at start-up, none when registered over the API.",
        flag="--workers",
        low=0,
        torchserve="default_workers_per_model",
    )
    startup_workers: int = option(0, "Workers of each model of `models.load`; 0 = as `defaults.workers`.", low=0)
    workers_without_gpu: int = option(
        1, "What 0 `workers` means at start-up on a machine without GPUs; 0 = one per CPU.", low=0
    )
    job_queue_size: int = option(1000, "Most requests waiting per model.", low=1, torchserve="job_queue_size")
    response_timeout: float = option(
        120.0, "Longest time for one batch in a worker.", low=0.001, unit="s", torchserve="default_response_timeout"
    )
    startup_timeout: float = option(
        120.0, "Longest time for a worker to load.", low=0.001, unit="s", torchserve="default_startup_timeout"
    )
    max_retry_timeout: float = option(300.0, "How long a worker that keeps dying is started again.", low=0, unit="s")
    retry_on_worker_death: int = option(
        1, "How often a request is computed again because its worker died.", low=0, high=10
    )
    isolate_errors: bool = option(True, "Run a failed batch again item by item, so that one bad item fails alone.")
    reject_invalid_json: bool = option(True, "Answer 400 to a body that is declared as JSON and is not.")
    strict_results: bool = option(
        False, "Refuse a handler's result that is no list or of the wrong length with TorchServe's texts, as 503."
    )
    decode_input: bool = option(
        True, "Hand JSON and text bodies to handlers decoded.", torchserve="decode_input_request"
    )
    threads_per_worker: int = option(0, "CPU threads of a worker; 0 = the server's CPUs shared evenly.", low=0)


@dataclass(frozen=True)
class ModelOverrides:
    """The keys of a ``[model.NAME]`` table: fields of a model's specification. Unset keys are left to the model."""

    batch_size: int = option(1, "Most requests in one batch.", low=1)
    max_batch_delay_ms: float = option(100.0, "Longest wait for a batch to fill.", low=0, unit="ms")
    batch_policy: str = option(
        "eager", "As `defaults.batch_policy`.", choices=("adaptive", "bucket", "eager", "window")
    )
    latency_target_ms: float = option(0.0, "As `defaults.latency_target_ms`.", low=0, unit="ms")
    min_workers: int = option(1, "Workers to keep.", low=0)
    max_workers: int = option(1, "Workers to grow to.", low=0)
    job_queue_size: int = option(1000, "Most requests waiting.", low=1)
    response_timeout: float = option(120.0, "Longest time for one batch.", low=0.001, unit="s")
    startup_timeout: float = option(120.0, "Longest time for a worker to load.", low=0.001, unit="s")
    max_retry_timeout: float = option(300.0, "How long a dying worker is started again.", low=0, unit="s")
    retry_on_worker_death: int = option(1, "How often a request survives its worker.", low=0, high=10)
    isolate_errors: bool = option(True, "Run a failed batch again item by item.")
    device_type: str = option("", "Where workers run; empty = a GPU where there is one.", choices=("", "cpu", "gpu"))
    device_ids: tuple[int, ...] = option((), "Physical GPU ids to use.", kind="ints", low=0)
    threads_per_worker: int = option(0, "CPU threads of a worker; 0 = an even share.", low=0)
    preprocess_threads: int = option(
        -1, "Batches preprocessed while one computes; -1 = one on a GPU, for built-in handlers.", low=-1
    )
    handler_threads: int = option(1, "Batches that one worker computes at once, each in a thread.", low=1)
    python: str = option("", "Interpreter of the workers; empty = the server's own.")
    parallel_level: int = option(0, "Processes and devices of one worker; 0 = one process.", low=0)
