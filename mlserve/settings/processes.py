"""How worker processes are started, where that is the same for all models."""

from __future__ import annotations

from dataclasses import dataclass

from mlserve.settings.option import option


@dataclass(frozen=True)
class WorkersSettings:
    """Worker processes of all models."""

    first_id: int = option(9000, "Id of the first worker; ids count up.", low=0, torchserve="initial_worker_port")
    first_group_id: int = option(
        29500, "Id of the first process group of several ranks.", low=0, torchserve="initial_distribution_port"
    )
    block_env: str = option(
        "",
        "Environment variables whose whole name matches are kept from workers.",
        kind="regex",
        torchserve="blacklist_env_vars",
    )
    retry_first_load: bool = option(
        False, "Start a worker again, for `max_retry_timeout`, although it has never loaded its model."
    )
    first_retry_wait: float = option(
        0.0, "How long a worker that died stays down before it is started again the first time.", low=0, unit="s"
    )
    spare: int = option(
        1,
        "Processes with torch or ONNX Runtime imported that wait to become the next worker of a model that needs them; "
        "none while less than four times their memory is free.",
        low=0,
        high=16,
    )
    install_requirements: bool = option(
        False,
        "Install a model's requirements file when the model is loaded.",
        torchserve="install_py_dep_per_model",
    )
    cpu_launcher: bool = option(
        False, "Start workers on CPU under `torch.backends.xeon.run_cpu`.", torchserve="cpu_launcher_enable"
    )
    cpu_launcher_args: str = option("", "Arguments of the CPU launcher.", torchserve="cpu_launcher_args")
    ipex: bool = option(False, "Tell handlers to use Intel's extension for torch.", torchserve="ipex_enable")
    ipex_gpu: bool = option(False, "The same, on Intel GPUs.", torchserve="ipex_gpu_enable")
