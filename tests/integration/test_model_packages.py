"""Packages that a model brings: installed for its workers, and for nobody else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mlserve.archive.requirements import Installing
from mlserve.archive.store import ModelStore
from mlserve.core.model import ModelSpec
from mlserve.errors import InvalidInput

NAME = "mlserve_test_bird"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one tiny wheel, and pip told to look nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{NAME}.py", "song = 'tweet'\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def resolve(tmp_path: Path, *, requirement: str = NAME, config: str = "", install: bool = True) -> ModelSpec:
    """Put an unpacked model into a new store and an archive of it beside, and resolve the archive."""
    store = tmp_path / "store"
    store.mkdir()
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": "m",
            "modelVersion": "1.0",
            "handler": "h.py",
            "requirementsFile": "requirements.txt",
            "configFile": "model-config.yaml",
        },
    }
    with zipfile.ZipFile(store / "m.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("h.py", "def handle(data, context):\n    return data and ['x']\n")
        archive.writestr("requirements.txt", requirement + "\n")
        archive.writestr("model-config.yaml", config)
    source = ModelStore(
        store,
        work_dir=tmp_path / "work",
        defaults={},
        model_settings={},
        allowed_urls=(),
        installing=Installing(install),
    )
    return asyncio.run(source.resolve("m.mar", {}))


def imports(python: str, path: str = "") -> str:
    """What ``python`` finds: the package's song and whether our own dependencies are there."""
    code = f"import sys; sys.path.insert(0, {path!r}); import {NAME}, msgspec; print({NAME}.song)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_requirements_are_not_installed_unless_the_operator_allows_it(wheels: Path, tmp_path: Path) -> None:
    spec = resolve(tmp_path, install=False)
    assert not (Path(spec.model_dir) / f"{NAME}.py").exists()
    assert spec.python == ""


def test_packages_land_beside_the_model_and_not_in_the_server(wheels: Path, tmp_path: Path) -> None:
    spec = resolve(tmp_path)
    assert imports(sys.executable, spec.model_dir) == "tweet"
    assert "No module named" in imports(sys.executable)
    assert spec.python == ""


def test_an_environment_of_its_own_sees_the_servers_packages_too(wheels: Path, tmp_path: Path) -> None:
    spec = resolve(tmp_path, config="useVenv: true\n")
    assert spec.python.startswith(spec.model_dir)
    assert imports(spec.python) == "tweet"
    assert not (Path(spec.model_dir) / f"{NAME}.py").exists()


def test_a_package_that_is_not_there_refuses_the_model_with_pips_words(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Custom pip package installation failed for model m") as caught:
        resolve(tmp_path, requirement="mlserve_test_unicorn==9")
    assert "mlserve_test_unicorn" in caught.value.detail
    assert not list((tmp_path / "work" / "models").iterdir()), "the unpacked model must go"
