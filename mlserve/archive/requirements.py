"""A model's own Python packages: installed when it is loaded, for its workers only.

A requirements file counts only where the operator allows it (``workers.install_requirements``). Its packages go into
an environment of the cache (:mod:`mlserve.archive.environments`). Without a cache the rules are TorchServe's: they go
into the model's directory, which is first on its workers' path, or with ``useVenv`` into a virtual environment there,
which sees the server's packages as well. A directory that is not ours is not written to: its model gets an environment
in any case.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from mlserve.archive.environments import EnvironmentCache, make_environment, show_parent
from mlserve.archive.installers import Sources
from mlserve.archive.names import check_member_name
from mlserve.archive.needs import read_needs, wheel_folders
from mlserve.core.model import ModelSpec
from mlserve.errors import InvalidInput
from mlserve.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT = 900.0  # s for one installation; torch alone takes minutes on a slow line


@dataclass(frozen=True)
class Installing:
    """What becomes of requirements files: nothing unless ``allowed``; without a ``cache`` they go beside the model.

    ``offline``: from wheels in the archive only.
    """

    allowed: bool = False
    cache: EnvironmentCache | None = None
    offline: bool = False


def installing(settings: Settings) -> Installing:
    """What ``settings`` say of it."""
    return Installing(settings.workers.install_requirements, environment_cache(settings), settings.models.offline)


def environment_cache(settings: Settings) -> EnvironmentCache | None:
    """``models.environment_cache``, if there is to be one."""
    folder = settings.models.environment_cache
    return EnvironmentCache(Path(folder), offline=settings.models.offline) if folder else None


def prepare(spec: ModelSpec, scratch: Path, how: Installing, stop: threading.Event | None = None) -> ModelSpec:
    """Make the environment and install the packages that ``spec`` asks for; returns it with its interpreter.

    ``scratch`` is a directory of ours for what may not be written beside the model. Raises :class:`InvalidInput`, with
    the installer's output as detail, if that fails, and a cancelled :class:`ServeError` once ``stop`` is set.
    """
    named = str((spec.manifest.get("model") or {}).get("requirementsFile") or "")
    if named and not how.allowed and how.cache is not None:
        log.info("model %s: its %s is not installed, as workers.install_requirements is off", spec.key, named)
    name = named if how.allowed else ""
    if not spec.use_venv and not name:
        return spec
    if spec.python:
        log.warning("model %s has an interpreter of its own, %s: nothing is installed for it", spec.key, spec.python)
        return spec
    if name and not Path(spec.model_dir, check_member_name(name)).is_file():
        raise InvalidInput(f"Model {spec.key.name} names the requirements file {name}, which is not there")
    if how.cache is None:
        return _beside(spec, scratch, name, offline=how.offline)
    needs = read_needs(Path(spec.model_dir), name)
    python = how.cache.python_for(spec.key.name, needs, lambda text: log.info("model %s: %s", spec.key, text), stop)
    return replace(spec, python=str(python))


def _beside(spec: ModelSpec, scratch: Path, name: str, *, offline: bool) -> ModelSpec:
    """Install into the model's directory, or into an environment there."""
    home = Path(spec.model_dir) if spec.owned_dir else scratch
    command = [sys.executable, "-m", "pip", "install", "-U", "-t", str(home)]
    if spec.use_venv or not spec.owned_dir:
        python = make_environment(home / "venv", with_pip=True)
        show_parent(home / "venv")
        spec = replace(spec, python=str(python))
        command = [str(python), "-m", "pip", "install", "-U", "--upgrade-strategy", "only-if-needed"]
    if name:
        found = Sources(wheel_folders(Path(spec.model_dir)), offline).options() if offline else []
        _run([*command, "--disable-pip-version-check", *found, "-r", str(Path(spec.model_dir, name))], spec)
    return spec


def _run(command: list[str], spec: ModelSpec) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
        output, failed = done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired:
        output, failed = f"pip had not ended after {TIMEOUT:g} s", True
    if failed:
        log.error("Custom pip package installation failed for model %s:\n%s", spec.key.name, output)
        raise InvalidInput(f"Custom pip package installation failed for model {spec.key.name}", detail=output)
    log.info("Installed custom pip packages for model %s", spec.key.name)
