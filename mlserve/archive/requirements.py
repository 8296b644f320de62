"""A model's own Python packages: installed when it is loaded, beside the model or into an environment of its own.

The rules are TorchServe's: a requirements file counts only where the operator allows it
(``workers.install_requirements``). Without ``useVenv`` the packages go into the model's directory, which is first on
its workers' path; with it into a virtual environment there, which sees the server's packages as well. A directory that
is not ours is not written to: its model gets an environment in any case.
"""

from __future__ import annotations

import logging
import site
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path

from mlserve.archive.names import check_member_name
from mlserve.core.model import ModelSpec
from mlserve.errors import InvalidInput

log = logging.getLogger(__name__)

TIMEOUT = 900.0  # s for one installation; torch alone takes minutes on a slow line
_PARENT = "mlserve_parent.pth"


def prepare(spec: ModelSpec, scratch: Path, *, install: bool) -> ModelSpec:
    """Make the environment and install the packages that ``spec`` asks for; returns it with its interpreter.

    ``scratch`` is a directory of ours for what may not be written beside the model. Raises :class:`InvalidInput`, with
    pip's output as detail, if that fails.
    """
    model = spec.manifest.get("model") or {}
    name = model.get("requirementsFile") if install else None
    if not spec.use_venv and not name:
        return spec
    if spec.python:
        log.warning("model %s has an interpreter of its own, %s: nothing is installed for it", spec.key, spec.python)
        return spec
    home = Path(spec.model_dir) if spec.owned_dir else scratch
    command = [sys.executable, "-m", "pip", "install", "-U", "-t", str(home)]
    if spec.use_venv or not spec.owned_dir:
        python = make_environment(home / "venv")
        spec = replace(spec, python=str(python))
        command = [str(python), "-m", "pip", "install", "-U", "--upgrade-strategy", "only-if-needed"]
    if name:
        file = Path(spec.model_dir, check_member_name(str(name)))
        if not file.is_file():
            raise InvalidInput(f"Model {spec.key.name} names the requirements file {name}, which is not there")
        _run([*command, "--disable-pip-version-check", "-r", str(file)], spec)
    return spec


def make_environment(folder: Path) -> Path:
    """A virtual environment that also sees the server's packages; returns its interpreter.

    Not ``system_site_packages``: a server in an environment of its own would show its base interpreter's instead.
    """
    venv.EnvBuilder(symlinks=True, with_pip=True).create(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    ours = dict.fromkeys(
        path
        for path in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages())
        if Path(path).is_dir()
    )
    lines = [f"import site; site.addsitedir({path!r})" for path in ours]  # reads the .pth files there as well
    (folder / "lib" / version / "site-packages" / _PARENT).write_text("\n".join(lines) + "\n")
    return folder / "bin" / "python"


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
