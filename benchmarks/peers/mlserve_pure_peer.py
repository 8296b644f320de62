"""mlserve as pure Python, which is what is installed where there is no C compiler; otherwise as in ``mlserve_peer``."""

from pathlib import Path

from benchmarks.peers import mlserve_peer
from benchmarks.peers.base import Job, Site
from benchmarks.servers import Server

NAME, TITLE, WAITS = "mlserve-pure", "mlserve, pure Python", False
NOTE = "installed with MLSERVE_COMPILE=0, otherwise as mlserve"
PACKAGES = mlserve_peer.PACKAGES
answer, request = mlserve_peer.answer, mlserve_peer.request


def install(site: Site) -> Path:
    """As ``mlserve_peer.install``, not compiled."""
    return mlserve_peer.install_build(site, NAME, compiled=False)


def start(site: Site, job: Job) -> Server:
    """As ``mlserve_peer.start``."""
    return mlserve_peer.start_from(install(site), site, job, NAME, TITLE)
