"""mlserve's compiled build (``setup.py``), made anew when a source has changed; otherwise as in ``mlserve_peer``."""

import hashlib
import os
import shutil
from pathlib import Path
from unittest import mock

from benchmarks.peers import mlserve_peer
from benchmarks.peers.base import ROOT, Job, Site
from benchmarks.peers.environment import ensure
from benchmarks.servers import Server

NAME, TITLE, WAITS = "mlserve-compiled", "mlserve, compiled", False
NOTE = "installed with MLSERVE_COMPILE=1, otherwise as mlserve"
SOURCES = ("mlserve", "handlers", "templates", "setup.py", "pyproject.toml", "README.md", "LICENSE")
PACKAGES = ["--force-reinstall", "mlserve-sources"]  # the second is the folder of copies
answer, request = mlserve_peer.answer, mlserve_peer.request


def install(site: Site) -> Path:
    """An environment with the build of a copy of the sources: in the checkout it would leave folders."""
    copy = site.scratch / PACKAGES[-1]
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    digest = hashlib.sha256()
    for name in SOURCES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    for path in sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(path.read_bytes())
    with mock.patch.dict(os.environ, MLSERVE_COMPILE="1"):
        return ensure(site.scratch, NAME, [*PACKAGES[:-1], str(copy)], site.python, also=digest.hexdigest())


def start(site: Site, job: Job) -> Server:
    """As ``mlserve_peer.start``."""
    return mlserve_peer.start_from(install(site), site, job, NAME, TITLE)
