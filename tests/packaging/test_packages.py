"""The explicit package list of pyproject.toml is the tree: a package missing there is missing after an install."""

import importlib.metadata
import importlib.resources
import sys
from pathlib import Path
from typing import Any

import mlserve

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


def setuptools_config() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        config: dict[str, Any] = tomllib.load(file)["tool"]["setuptools"]
    return config


def test_every_folder_with_code_is_in_the_package_list() -> None:
    in_tree = set()
    for folder, prefix in (
        ("mlserve", "mlserve"),
        ("handlers", "mlserve.handlers"),
        ("templates", "mlserve.templates"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            in_tree.add(".".join([prefix, *path.parent.relative_to(ROOT / folder).parts]))
    listed = setuptools_config()["packages"]
    assert listed == sorted(in_tree)


def test_every_package_has_its_init_file() -> None:
    """Without it setuptools still ships the folder, but type checkers and importlib.resources treat it differently."""
    places = setuptools_config()["package-dir"]
    for package in setuptools_config()["packages"]:
        top = next(name for name in sorted(places, key=len, reverse=True) if f"{package}.".startswith(f"{name}."))
        folder = ROOT.joinpath(places[top], *package.removeprefix(top).strip(".").split("."))
        assert (folder / "__init__.py").is_file(), package


def test_data_files_in_subfolders_are_not_forgotten() -> None:
    """Below handlers/ and templates/ there is only code: package-data takes one level, other files would be lost."""
    for folder in ("handlers", "templates"):
        below = [
            path for path in (ROOT / folder).glob("*/**/*") if path.is_file() and path.suffix not in (".py", ".pyc")
        ]
        assert not below, below


def test_templates_can_be_read_from_the_installed_package() -> None:
    names = {entry.name for entry in importlib.resources.files("mlserve.templates").iterdir()}
    in_tree = {path.name for path in (ROOT / "templates").iterdir()}
    assert in_tree <= names


def test_installed_version_is_the_code_s_version() -> None:
    assert importlib.metadata.version("mlserve") == mlserve.__version__


def test_console_script_points_at_a_function() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="mlserve")
    assert callable(script.load())


def test_torch_is_not_a_core_dependency() -> None:
    heavy = ("torch", "numpy", "pillow", "onnx", "tensorrt", "nvidia")
    core = [line for line in importlib.metadata.requires("mlserve") or [] if "extra ==" not in line]
    assert core
    assert not [line for line in core if line.lower().startswith(heavy)]
