"""What mlserve and TorchServe share: archives with the job's settings, and in drop-in mode one config.properties."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import BATCH, DELAY_MS, LARGEST, QUEUE, TIMEOUT_S, Job, Site
from benchmarks.servers import free_ports


def pack(site: Site, job: Job, archiver: Sequence[Path | str], settings: str = "") -> Path:
    """The job's archive, in a store of its packer's own; returns the store. model-config.yaml has the settings.

    ``archiver`` is ``mlserve archive`` or ``torch-model-archiver``, which take the same flags. ``settings`` are lines
    that only one of the servers knows.
    """
    store = site.scratch / "stores" / f"{Path(archiver[0]).name}-{job.name}"
    store.mkdir(parents=True, exist_ok=True)
    config = store / "model-config.yaml"
    config.write_text(
        f"minWorkers: {job.workers}\nmaxWorkers: {max(2, job.workers)}\nbatchSize: {BATCH}\nmaxBatchDelay: {DELAY_MS}\n"
        f"responseTimeout: {TIMEOUT_S}\njobQueueSize: {QUEUE}\n{settings}",
        encoding="utf-8",
    )
    command = [*map(str, archiver), "--model-name", job.name, "--version", "1.0", "--handler", str(job.handler)]
    command += ["--config-file", str(config), "--export-path", str(store), "--force"]
    if job.files:
        command += ["--serialized-file", str(job.files[0])]
    if job.files[1:]:
        command += ["--extra-files", ",".join(map(str, job.files[1:]))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return store


def write_config(store: Path, run_dir: Path) -> tuple[Path, dict[str, int]]:
    """The config.properties of either server, the same but for its free ports; returns it and the ports by name."""
    names = ("inference", "management", "metrics", "grpc", "grpc_management", "worker")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    config = run_dir / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{ports['inference']}\n"
        f"management_address=http://127.0.0.1:{ports['management']}\n"
        f"metrics_address=http://127.0.0.1:{ports['metrics']}\n"
        f"grpc_inference_port={ports['grpc']}\ngrpc_management_port={ports['grpc_management']}\n"
        f"initial_worker_port={ports.pop('worker')}\n"
        "disable_token_authorization=true\nenable_model_api=true\ndisable_system_metrics=true\n"
        f"job_queue_size={QUEUE}\nmax_request_size={LARGEST}\nmax_response_size={LARGEST}\n"
        f"default_workers_per_model=1\nmodel_store={store}\n"
    )
    return config, ports


def folders(run_dir: Path) -> dict[str, str]:
    """The variables by which either server puts its temporary files and logs into ``run_dir``."""
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    return {"TEMP": str(run_dir / "tmp")} | {
        name: str(run_dir / "logs") for name in ("LOG_LOCATION", "METRICS_LOCATION")
    }
