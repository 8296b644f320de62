"""A copy of what the project is built from: builds beside each other would write into one checkout."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy(target: Path) -> Path:
    """The folders and files of the sources in ``target``, which is returned."""
    for folder in ("mlserve", "handlers", "templates"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "build_backend.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, target)
    return target
