"""Packages to install, made by hand: no build tool and no index is needed."""

from __future__ import annotations

import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, version: str, code: str, requires: str = "", script: bool = False) -> None:
    """Write a wheel of one module into ``folder``; with ``script`` its ``main`` is a command."""
    info = f"{name}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {name}:main\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


def slow_project(folder: Path, begun: Path) -> None:
    """A source tree whose build writes its process id to ``begun`` and then takes longer than any test."""
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n')
    body = f"    open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(100)\n"
    hooks = ("get_requires_for_build_wheel", "prepare_metadata_for_build_wheel", "build_wheel")
    code = "".join(f"def {name}(*args, **kwargs):\n{body}" for name in hooks)
    (folder / "b.py").write_text(f"import os, time\n{code}")
