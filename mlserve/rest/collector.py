"""mlserve's own metrics: the core's counters as Prometheus families.

Every series of a version is there, with 0, from the moment the version is registered: an alert or a dashboard must not
have to tell "nothing yet" from "not exported".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from mlserve import __version__
from mlserve.core.lifecycle import WorkerState
from mlserve.core.metrics import ModelStats
from mlserve.rest.families import handler_families, histogram_family, machine_families
from mlserve.rest.machine import MachineReading

if TYPE_CHECKING:
    from mlserve.core.intake import Intake
    from mlserve.core.model import SpareInfo
    from mlserve.core.registry import VersionHandle

_VERSION = ("model", "version")
_WORKER_STATES = tuple(state.value for state in WorkerState if state is not WorkerState.STOPPED)


@dataclass(frozen=True)
class VersionSnapshot:
    """The numbers of one model version at the moment of a scrape."""

    labels: tuple[str, str]  # model, version
    stats: ModelStats
    queue_depth: int
    workers: Mapping[str, int]  # by state, all states present
    restarts: Mapping[str, int]  # by reason
    worker_memory: Mapping[str, int]  # bytes by worker id


def snapshot(handle: VersionHandle) -> VersionSnapshot:
    """Copy a version's numbers; to be called on the event loop."""
    workers = dict.fromkeys(_WORKER_STATES, 0)
    memory = {}
    for worker in handle.pool.describe():
        workers[worker.state] = workers.get(worker.state, 0) + 1
        memory[str(worker.worker_id)] = worker.memory_bytes
    name, version = handle.spec.key
    restarts: Mapping[str, int] = getattr(handle.pool, "restarts", {})
    return VersionSnapshot((name, version), handle.stats.copy(), handle.queue.depth, workers, dict(restarts), memory)


class ServiceCollector(Collector):
    """Families of one scrape: of the versions' snapshots and, where asked for, of the machine.

    ``names`` keeps only the families, or within a family the series, of those names. ``handlers`` is off where their
    metrics are shown in TorchServe's way: one name can be there once.
    """

    def __init__(
        self,
        versions: Collection[VersionSnapshot],
        *,
        ready: bool,
        machine: MachineReading | None = None,
        names: Collection[str] = (),
        handlers: bool = True,
        spares: Sequence[SpareInfo] = (),
        intake: Intake | None = None,
    ) -> None:
        self._intake = intake
        self._versions = versions
        self._ready = ready
        self._machine = machine
        self._names = frozenset(names)
        self._handlers = handlers
        self._spares = spares

    def collect(self) -> Iterator[Metric]:
        """Called by the encoders of ``prometheus_client``."""
        for family in self._all():
            if not self._names or family.name in self._names:
                yield family
                continue
            family.samples = [sample for sample in family.samples if sample.name in self._names]
            if family.samples:
                yield family

    def _all(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("mlserve_info", "The running server; always 1.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        yield GaugeMetricFamily("mlserve_ready", "1 if every required model has a ready worker.", int(self._ready))
        yield GaugeMetricFamily("mlserve_models", "Registered model versions.", len(self._versions))
        if self._intake is not None:
            yield from _intake_families(self._intake)
        yield from self._request_families()
        yield from self._worker_families()
        yield from self._spare_families()
        if self._handlers:
            yield from handler_families([(version.labels, version.stats.custom) for version in self._versions])
        if self._machine is not None:
            yield from machine_families(self._machine)

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("mlserve_requests", "Requests by how they ended.", labels=(*_VERSION, "status"))
        rejected = CounterMetricFamily(
            "mlserve_requests_rejected", "Requests that were never queued.", labels=(*_VERSION, "reason")
        )
        depth = GaugeMetricFamily("mlserve_queue_depth", "Requests that wait for a worker.", labels=_VERSION)
        for version in self._versions:
            for status, count in version.stats.requests.items():
                requests.add_metric((*version.labels, status), count)
            for reason, count in version.stats.rejections.items():
                rejected.add_metric((*version.labels, reason), count)
            depth.add_metric(version.labels, version.queue_depth)
        yield from (requests, rejected, depth)
        for attribute, name, text in (
            ("cancelled", "mlserve_requests_cancelled", "Requests whose client was gone, or asked."),
            ("expired", "mlserve_requests_expired", "Requests whose deadline passed in the queue."),
            ("retries", "mlserve_request_retries", "Requests sent again because their worker died."),
            ("chunks", "mlserve_stream_chunks", "Pieces of streamed answers."),
        ):
            counter = CounterMetricFamily(name, text, labels=_VERSION)
            for version in self._versions:
                counter.add_metric(version.labels, getattr(version.stats, attribute))
            yield counter
        for attribute, name, text in (
            ("queue_seconds", "mlserve_queue_seconds", "Time from arrival to being sent to a worker."),
            ("inference_seconds", "mlserve_inference_seconds", "Time of the handler for one batch."),
            ("request_seconds", "mlserve_request_seconds", "Time from arrival to answer."),
            ("batch_size", "mlserve_batch_size", "Requests in a batch."),
        ):
            rows = [(version.labels, getattr(version.stats, attribute)) for version in self._versions]
            yield histogram_family(name, text, _VERSION, rows)

    def _worker_families(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily("mlserve_workers", "Workers by state.", labels=(*_VERSION, "state"))
        restarts = CounterMetricFamily(
            "mlserve_worker_restarts", "Workers started again, by why they ended.", labels=(*_VERSION, "reason")
        )
        memory = GaugeMetricFamily(
            "mlserve_worker_memory_bytes", "Resident memory of a worker.", labels=(*_VERSION, "worker")
        )
        for version in self._versions:
            for state, count in version.workers.items():
                workers.add_metric((*version.labels, state.lower()), count)
            for reason, count in version.restarts.items():
                restarts.add_metric((*version.labels, reason), count)
            for worker, size in version.worker_memory.items():
                memory.add_metric((*version.labels, worker), size)
        yield from (workers, restarts, memory)

    def _spare_families(self) -> Iterator[Metric]:
        count = GaugeMetricFamily("mlserve_spare_workers", "Processes that wait to become workers.", labels=("state",))
        for state in ("starting", "warming", "warm"):
            count.add_metric((state,), sum(spare.state == state for spare in self._spares))
        share = sum(spare.proportional_bytes for spare in self._spares)
        yield count
        yield GaugeMetricFamily("mlserve_spare_memory_bytes", "Their share of memory, once they are warm.", share)


def _intake_families(intake: Intake) -> Iterator[Metric]:
    """What clients make the server hold, and what it has refused to."""
    count = GaugeMetricFamily("mlserve_connections", "Connections of clients.", labels=("listener",))
    refused = CounterMetricFamily(
        "mlserve_connections_refused", "Connections beyond `server.max_connections`.", labels=("listener",)
    )
    for listener, connections in intake.connections.items():
        count.add_metric((listener,), connections())
        refused.add_metric((listener,), intake.refused_connections[listener])
    yield from (count, refused)
    yield GaugeMetricFamily("mlserve_request_memory_bytes", "Request bodies that are held and counted.", intake.held)
    yield CounterMetricFamily(
        "mlserve_request_memory_refused", "Requests beyond `server.max_request_memory`.", intake.refused_bodies
    )
