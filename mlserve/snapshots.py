"""Snapshots: what is served and how, in a file after each change, so that a restart brings it back.

The file is a ``config.properties`` of TorchServe's form with its ``model_snapshot`` JSON, under TorchServe's names, so
that either server starts from the other's. A snapshot is a convenience of the operator, never a reason not to serve:
a directory that cannot be written is a warning. A snapshot that names an archive that is gone is one not to start,
because a server without it would overwrite the only record of it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mlserve.archive.download import file_name, is_url
from mlserve.archive.store import ModelStore
from mlserve.core.changes import Registered
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.service import InferenceService
from mlserve.errors import ArchiveError, ErrorKind, ServeError
from mlserve.protocols.torchserve_texts import TORCHSERVE_VERSION
from mlserve.settings import Settings, all_options
from mlserve.settings.properties import format_properties
from mlserve.settings.snapshot_files import snapshot_directory
from mlserve.settings.to_properties import to_properties
from mlserve.startup import LoadProgress

log = logging.getLogger(__name__)

_MILLISECOND = timedelta(milliseconds=1)


class InvalidSnapshot(ServeError):
    """A snapshot that cannot be restored as a whole. The message is TorchServe's."""

    kind = ErrorKind.INTERNAL


class Snapshots:
    """Writes the snapshots of one server, from :meth:`started` to :meth:`stopped`. ``gpus`` is how many it uses."""

    def __init__(
        self, settings: Settings, service: InferenceService, gpus: int, now: Callable[[], datetime] = datetime.now
    ) -> None:
        self._settings = settings
        self._service = service
        self._gpus = gpus
        self._now = now
        self._directory = snapshot_directory(settings).absolute()
        self._open = False

    def started(self) -> None:
        """The models named at start are registered: write, and again after each change."""
        if self._settings.models.snapshots:
            self._open = True
            self._service.add_change_listener(self._changed)
            self._write("startup")

    def stopped(self) -> None:
        """The server stops: write for the last time, while the models are still there."""
        if self._open:
            self._write("shutdown")
            self._open = False

    def _changed(self) -> None:
        if self._open:
            self._write("snapshot")

    def _write(self, kind: str) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._free_path(kind)
            part = path.with_name(f".{path.name}.part")
            part.unlink(missing_ok=True)
            with open(part, "x", encoding="ascii", opener=self._create) as file:
                file.write(self._text(path.name))
            os.replace(part, path)
        except OSError as error:
            log.warning("no snapshot is written to %s: %s", self._directory, error.strerror or error)

    def _create(self, path: str, flags: int) -> int:
        """A snapshot is a whole configuration, passwords included, which nobody but its owner may then read."""
        secret = any(item.secret and item.torchserve in self._settings.properties for item in all_options())
        return os.open(path, flags, 0o600 if secret else 0o666)

    def _free_path(self, kind: str) -> Path:
        """Times are in milliseconds; two changes in one must not have one name, or the order is lost."""
        at = self._now()
        while True:
            stamp = f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03}"
            if not any(self._directory.glob(f"{stamp}-*.cfg")):
                return self._directory / f"{stamp}-{kind}.cfg"
            at += _MILLISECOND

    def _text(self, name: str) -> str:
        models = self._models()
        count = sum(len(versions) for versions in models.values())
        snapshot = {"name": name, "modelCount": count, "created": int(time.time() * 1000), "models": models}
        values = {
            **to_properties(self._settings),
            "version": TORCHSERVE_VERSION,
            "python": sys.executable,
            "number_of_gpu": str(self._gpus),
            "model_snapshot": json.dumps(snapshot, indent=2),
        }
        return format_properties(values, ("Saving snapshot", time.strftime("%a %b %d %H:%M:%S %Z %Y")))

    def _models(self) -> dict[str, dict[str, dict[str, Any]]]:
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for name, model in self._service.registry:
            for version, handle in model.versions.items():
                if handle.spec.listed:
                    found.setdefault(name, {})[version] = self._state(handle.spec, version == model.default)
        return found

    def _state(self, spec: ModelSpec, is_default: bool) -> dict[str, Any]:
        state: dict[str, Any] = {
            "defaultVersion": is_default,
            "marName": archive_name(spec.url, self._settings.models.store),
            "minWorkers": spec.min_workers,
            "maxWorkers": spec.max_workers,
            "batchSize": spec.batch_size,
            "maxBatchDelay": _whole(spec.max_batch_delay_ms),
            "responseTimeout": _whole(spec.response_timeout),
            "startupTimeout": _whole(spec.startup_timeout),
            "runtimeType": spec.runtime,
        }
        return {**state, "parallelLevel": spec.parallel_level} if spec.parallel_level else state


def archive_name(url: str, store: str) -> str:
    """How a snapshot names what ``url`` was loaded from: by its place in the store, else by its whole path."""
    if is_url(url):
        return file_name(url)  # it was downloaded into the store
    root = Path(store).absolute()
    path = Path(os.path.normpath(root / url))
    if store and path.is_relative_to(root) and _exists(path):
        return str(path.relative_to(root))
    return os.path.abspath(url)


async def restore_models(
    service: InferenceService, store: ModelStore, settings: Settings, progress: LoadProgress
) -> int:
    """Register the models of ``settings.model_snapshot`` as they were; returns how many could not be.

    Raises :class:`InvalidSnapshot` if an archive is gone; then nothing is registered.
    """
    models = (settings.model_snapshot or {})["models"]
    versions = [(name, version, state) for name, of in models.items() for version, state in of.items()]
    for name, version, state in versions:
        if not any(_exists(Path(place)) for place in (Path(settings.models.store, state["marName"]), state["marName"])):
            raise InvalidSnapshot(
                f"InvalidSnapshotException: Model archive file for model :{name}, version :{version}"
                f" not found in model store ({state['marName']})"
            )
    if not versions:
        log.warning("the snapshot holds no models: starting without any")
    failed = 0
    for name, version, state in versions:
        progress.model_loading(name)
        started = time.monotonic()
        try:
            registered = await _restore(service, store, settings, ModelKey(name, version), state)
        except ServeError as error:
            log.error("model %s:%s of the snapshot is not restored: %s", name, version, error.message)
            progress.model_failed(name, error)
            failed += 1
        else:
            if registered.done:
                progress.model_ready(name, time.monotonic() - started)
    return failed


async def _restore(
    service: InferenceService, store: ModelStore, settings: Settings, key: ModelKey, state: Mapping[str, Any]
) -> Registered:
    background = settings.models.start_in_background
    overrides = {"model_name": key.name, "runtime": state.get("runtimeType")}
    try:
        spec = await store.resolve_local(state["marName"], overrides)
    except ArchiveError as error:
        if not settings.models.keep_going:
            raise
        log.error("model %s: its archive cannot be read, so it has no workers: %s", key, error.message)
        spec = ModelSpec(key, settings.models.store, "unreadable_archive", url=state["marName"], owned_dir=False)
        state = {**state, "minWorkers": 0}
    if spec.key != key:
        log.warning("model %s of the snapshot is version %s by now", key, spec.key.version)
    fields = _fields(state)
    provenance = {**spec.provenance, **dict.fromkeys(fields, "snapshot")}
    spec = replace(spec, **fields, provenance=provenance, loaded_at_startup=False)
    registered = await service.register_spec(spec, synchronous=not background)
    if state.get("defaultVersion"):
        service.registry.set_default(*spec.key)
    return registered


def _fields(state: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a specification that a snapshot holds; those that older ones lack stay as the archive has them."""
    fields: dict[str, Any] = {
        "min_workers": int(state["minWorkers"]),
        "max_workers": int(state["maxWorkers"]),
        "batch_size": max(1, int(state["batchSize"])),
        "max_batch_delay_ms": float(state["maxBatchDelay"]),
    }
    for key, name, kind in (
        ("responseTimeout", "response_timeout", float),
        ("startupTimeout", "startup_timeout", float),
        ("parallelLevel", "parallel_level", int),
    ):
        if isinstance(state.get(key), (int, float)):
            fields[name] = kind(state[key])
    return fields


def _exists(path: Path) -> bool:
    """Also of ``handler.py:function``."""
    handler = str(path).rpartition(":")[0]
    return path.exists() or (handler.endswith(".py") and Path(handler).is_file())


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value
