"""Which models are served: name -> versions -> handle, the default version of each, and who wants to know of changes.

A protocol's route table holds handles, not names: a request is bound to a version in the moment it is routed, so a
switch of the default version is one assignment, seen whole by every later request and by none of the earlier ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mlserve.core.lifecycle import VersionEvent, VersionState, advance_version, version_event
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.core.ports import Pool
from mlserve.errors import ModelExists, ModelNotFound, ServeError, VersionInUse, VersionNotFound

log = logging.getLogger(__name__)


class VersionHandle:
    """A served model version: what it is, its queue, its workers, its numbers."""

    def __init__(self, spec: ModelSpec, queue: ModelQueue, pool: Pool, stats: ModelStats) -> None:
        self.spec = spec
        self.queue = queue
        self.pool = pool
        self.stats = stats
        self.last_error = ""
        self.state = VersionState.REGISTERED
        self.wanted = 0  # workers that were asked for last; the pool may not have come to it yet
        queue.on_slots = self.observe
        queue.on_gave_up = self.gave_up

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return self.spec.key

    @property
    def ready_workers(self) -> int:
        """Workers that can take a batch now."""
        return len(self.queue.slots)

    @property
    def closing(self) -> bool:
        """Whether the version is on its way out, or gone: what its workers do has no meaning for its state any more."""
        return self.state in (VersionState.DRAINING, VersionState.UNLOADED)

    def observe(self) -> None:
        """Take the state that follows from how many workers are ready and wanted."""
        if not self.closing:
            self.step(version_event(self.ready_workers, self.pool.target))

    def gave_up(self, error: ServeError) -> None:
        """No worker is left, and none will come without a new scale."""
        if not self.closing:
            self.last_error = error.message
            self.step(VersionEvent.GAVE_UP)

    def step(self, event: VersionEvent) -> None:
        """Advance the state; each change is logged."""
        before, self.state = self.state, advance_version(self.state, event)
        if self.state is not before:
            log.info("model %s: %s -> %s (%s)", self.key, before.value, self.state.value, event.value)


@dataclass
class Model:
    """The versions of one model; ``default`` is always one of them."""

    default: str
    versions: dict[str, VersionHandle] = field(default_factory=dict)


class Registry:
    """All served versions. Listeners are called after every change that can alter where a request goes."""

    def __init__(self, default_versions: Mapping[str, str] | None = None) -> None:
        """``default_versions`` maps models to the version that becomes their default when it is added."""
        self._models: dict[str, Model] = {}
        self._default_versions = default_versions or {}
        self._listeners: list[Callable[[], object]] = []

    def __iter__(self) -> Iterator[tuple[str, Model]]:
        return iter(sorted(self._models.items()))

    def add_listener(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` after each change, and once now."""
        self._listeners.append(callback)
        callback()

    def _changed(self) -> None:
        for callback in self._listeners:
            callback()

    def model(self, name: str) -> Model:
        """Raises :class:`ModelNotFound`."""
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFound(f"Model not found: {name}") from None

    def find(self, name: str, version: str = "") -> VersionHandle:
        """A version, the default one if none is named. Raises :class:`ModelNotFound`, :class:`VersionNotFound`."""
        model = self.model(name)
        try:
            return model.versions[version or model.default]
        except KeyError:
            raise VersionNotFound(f"Model version: {version} does not exist for model: {name}") from None

    def has(self, key: ModelKey) -> bool:
        """Whether that version is registered."""
        model = self._models.get(key.name)
        return model is not None and key.version in model.versions

    def add(self, handle: VersionHandle) -> None:
        """Add a version; the first of a model is its default, or the configured one. Raises :class:`ModelExists`."""
        name, version = handle.key
        if self.has(handle.key):
            raise ModelExists(f"Model version {version} is already registered for model {name}")
        model = self._models.setdefault(name, Model(version))
        model.versions[version] = handle
        if self._default_versions.get(name) == version:
            model.default = version
        self._changed()

    def discard(self, handle: VersionHandle) -> None:
        """Take back a version that never came to serve; if it was the default, an older one is."""
        name, version = handle.key
        model = self._models[name]
        del model.versions[version]
        if not model.versions:
            del self._models[name]
        elif model.default == version:
            model.default = next(iter(model.versions))
        self._changed()

    def remove(self, name: str, version: str = "") -> VersionHandle:
        """Take a version out of routing. Raises NotFound errors; :class:`VersionInUse` for a default with others."""
        handle = self.find(name, version)
        model = self._models[name]
        if handle.key.version == model.default and len(model.versions) > 1:
            raise VersionInUse(f"Cannot remove default version for model {name}")
        self.discard(handle)
        return handle

    def set_default(self, name: str, version: str) -> None:
        """Route requests without a version to ``version`` from now on. Raises NotFound errors."""
        model = self.model(name)
        if version not in model.versions:
            raise VersionNotFound(f"Model version {version} does not exist for model {name}")
        model.default = version
        self._changed()

    def handles(self) -> Iterator[VersionHandle]:
        """Every version of every model, by name."""
        for _, model in self:
            yield from model.versions.values()
