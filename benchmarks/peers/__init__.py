"""The servers that are compared: a module per server, each with the same names.

``NAME`` is what the command line calls it and ``TITLE`` what the table does; ``NOTE`` says how it is configured,
``PACKAGES`` what it is installed from, its own first;
``WAITS`` whether it holds a lone request back until the batch delay is over. ``install(site)`` sets it up once
and returns its environment, ``start(site, job)`` launches it, ``request(site, job, payloads)`` is what wrk sends, and
``answer(body)`` finds what the handler returned in what came back. What cannot be had raises ``MissingPeerError``, what
fails otherwise one of ``FAILURES``.
"""

import importlib
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Protocol, cast

from benchmarks.peers.base import Job, Payload, Site
from benchmarks.peers.environment import site_packages
from benchmarks.servers import Server
from benchmarks.wrk import Request

PEERS = {
    "mlserve": "mlserve_peer",
    "mlserve-pure": "mlserve_pure_peer",
    "torchserve": "torchserve_peer",
    "triton": "triton_peer",
    "mosec": "mosec_peer",
    "litserve": "litserve_peer",
    "bentoml": "bentoml_peer",
    "ray": "ray_peer",
    "mlserver": "mlserver_peer",
    "fastapi": "fastapi_peer",
}
# Of setting a server up and of starting it: a program that is not there, that fails, or that takes too long.
FAILURES = (RuntimeError, OSError, subprocess.SubprocessError)


class Peer(Protocol):
    """What a peer's module has."""

    NAME: str
    TITLE: str
    NOTE: str
    PACKAGES: list[str]
    WAITS: bool

    def install(self, site: Site) -> Path: ...
    def start(self, site: Site, job: Job) -> Server: ...
    def request(self, site: Site, job: Job, payloads: Sequence[Payload]) -> Request: ...
    def answer(self, body: bytes) -> bytes: ...


def described(which: Peer, site: Site) -> str:
    """Its version, where it is a package of an index, and its configuration."""
    found = {one.name.lower(): one.version for one in distributions(path=[str(site_packages(which.install(site)))])}
    package = re.split(r"[^\w-]", which.PACKAGES[0])[0]
    return f"{package} {found[package]}: {which.NOTE}" if package in found else which.NOTE


def peer(name: str) -> Peer:
    """The module of the peer ``name``; raises KeyError for a name that is not in the table."""
    return cast(Peer, importlib.import_module(f"{__name__}.{PEERS[name]}"))
