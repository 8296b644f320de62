"""``mlserve archive --build-env``: the environment of an archive that was just written, where servers will look for it.

It is built from the archive and not from the files that went into it, so that it is the one that loading it asks for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mlserve.archive import unpack
from mlserve.archive.manifest import read_manifest
from mlserve.archive.needs import read_needs
from mlserve.archive.requirements import environment_cache
from mlserve.cli.sources import CommandLine, read_settings
from mlserve.errors import InvalidInput


def build_environment(archive: Path, model: str, say: Callable[[str], object]) -> Path:
    """Build it, unless it is there, and return its interpreter; ``say`` gets lines of progress.

    Settings are those of the environment and ``mlserve.toml``. Raises :class:`InvalidInput` with the installer's words.
    """
    cache = environment_cache(read_settings(CommandLine()))
    if cache is None:
        raise InvalidInput("--build-env needs a folder for environments: models.environment_cache is empty")
    with tempfile.TemporaryDirectory(prefix="mlserve-archive-") as scratch:
        directory = archive if archive.is_dir() else unpack(archive, Path(scratch) / "model")
        manifest = read_manifest(directory) or {}
        name = (manifest.get("model") or {}).get("requirementsFile")
        if not name:
            raise InvalidInput("--build-env needs --requirements-file")
        return cache.python_for(model, read_needs(directory, str(name)), say)
