"""The build backend that pyproject.toml names: setuptools', which is told here whether to compile (setup.py).

A wheel is compiled where that can be done. Where it cannot it is pure Python, says so in one line and takes the reason
with it (``mlserve --version``), as pip shows what a build says only with ``-v``. ``MLSERVE_COMPILE=0`` never compiles;
with ``MLSERVE_COMPILE=1`` not being able to is an error. An editable install is never compiled: the modules would stay
as they were beside sources that are edited. What compiling needs is asked of pip or uv only where it will be used.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from setuptools import build_meta

Config = dict[str, str | list[str] | None] | None

# mypy's exact version, as what it generates differs between them; msgspec for the arguments of its classes.
COMPILING = ["mypy==2.4.1", "msgspec>=0.18.6"]


def get_requires_for_build_wheel(config_settings: Config = None) -> list[str]:
    """What is to be installed for ``build_wheel``."""
    with _setup(compiled=False):
        needed: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    return needed if _wish() == "0" or _obstacle() else [*needed, *COMPILING]


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Config = None) -> str:
    """The wheel's metadata, which are the same for both builds."""
    with _setup(compiled=False):
        return str(build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings))


def build_wheel(wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None) -> str:
    """A compiled wheel, or a pure one: its file name. Ends with a message where it must be compiled and cannot."""
    wish = _wish()
    reason = "it was built with MLSERVE_COMPILE=0" if wish == "0" else _obstacle(installed=True)
    if not reason:
        try:
            with _setup(compiled=True):
                return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))
        except (Exception, SystemExit) as error:  # mypyc ends with the latter
            if wish == "1":
                raise
            reason = f"compiling it failed ({' '.join(str(error).split()) or type(error).__name__})"
    print(f"mlserve is built as pure Python: {reason}", file=sys.stderr, flush=True)
    with _setup(compiled=False, reason=reason):
        return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def get_requires_for_build_editable(config_settings: Config = None) -> list[str]:
    """What is to be installed for ``build_editable``."""
    with _setup(compiled=False):
        return list(build_meta.get_requires_for_build_editable(config_settings))


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Config = None) -> str:
    """The metadata of an editable install."""
    with _setup(compiled=False):
        return str(build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings))


def build_editable(wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None) -> str:
    """A wheel that refers to the sources, which run as they are."""
    with _setup(compiled=False):
        return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


def get_requires_for_build_sdist(config_settings: Config = None) -> list[str]:
    """What is to be installed for ``build_sdist``."""
    with _setup(compiled=False):
        return list(build_meta.get_requires_for_build_sdist(config_settings))


def build_sdist(sdist_directory: str, config_settings: Config = None) -> str:
    """The sources, nothing else: what is installed from them is compiled there."""
    with _setup(compiled=False):
        return str(build_meta.build_sdist(sdist_directory, config_settings))


def _wish() -> str:
    """``MLSERVE_COMPILE``; empty where it is left to what is there."""
    wish = os.environ.get("MLSERVE_COMPILE", "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"mlserve: MLSERVE_COMPILE={wish} is neither 0 (never) nor 1 (must); unset: where it can be")
    return wish


def _obstacle(*, installed: bool = False) -> str:
    """What there is not to compile with, empty if all is there; with ``installed`` also what pip has to install.

    Ends with a message where it must be compiled.
    """
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    header = Path(sysconfig.get_path("include"), "Python.h")
    reason = ""
    if not command or shutil.which(command[0]) is None:
        reason = f"there was no C compiler ({' '.join(command)})"
    elif not header.exists():
        reason = f"Python's headers were missing ({header})"
    elif installed and not (find_spec("mypyc") and find_spec("msgspec")):  # without isolation pip installs nothing
        reason = f"{' and '.join(COMPILING)} were not installed"
    if reason and _wish() == "1":
        raise SystemExit(f"mlserve: MLSERVE_COMPILE=1, but {reason}")
    return reason


def _setup(*, compiled: bool, reason: str = "") -> "mock._patch_dict":
    """How setup.py, which setuptools runs in this process, is told which build it is to make, and why."""
    return mock.patch.dict(os.environ, MLSERVE_COMPILE=str(int(compiled)), MLSERVE_NOT_COMPILED=reason)
