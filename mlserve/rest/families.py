"""Prometheus families out of plain numbers: histograms, the machine, and what handlers report.

A handler's metric keeps the name that the handler gave it, made legal; only where that name would run into one of the
server's own it gets a prefix. Of a name reported as two kinds the later one gets its kind as a suffix: a family has one
type, and Prometheus refuses a whole scrape for one family or series that is there twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from mlserve.core.metrics import CustomMetrics, Histogram, Series
from mlserve.rest.machine import MachineReading

HANDLER_PREFIX = "handler_"

_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_OWN = re.compile(r"(mlserve|process|system|gpu)(_.*)?")
_FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}

Labels = tuple[str, ...]


def histogram_family(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Labels, Histogram]]
) -> HistogramMetricFamily:
    """One histogram per row of label values."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in rows:
        family.add_metric(values, histogram.cumulative(), histogram.total)
    return family


def machine_families(reading: MachineReading) -> Iterator[Metric]:
    """The server process under the usual ``process_`` names, then the machine and its GPUs."""
    yield CounterMetricFamily("process_cpu_seconds", "CPU time of the server process.", reading.process_cpu_seconds)
    for name, text, value in (
        ("process_resident_memory_bytes", "Resident memory of the server process.", reading.process_memory),
        ("process_open_fds", "Open file descriptors of the server process.", reading.process_open_files),
        ("process_start_time_seconds", "When the server process started.", reading.process_start_time),
        ("system_cpu_utilization_ratio", "CPU use of the machine since the last scrape.", reading.cpu_utilization),
        ("system_memory_used_bytes", "Memory of the machine in use.", reading.memory_used),
        ("system_memory_available_bytes", "Memory of the machine that is free for use.", reading.memory_available),
        ("system_memory_total_bytes", "Memory of the machine.", reading.memory_total),
    ):
        yield GaugeMetricFamily(name, text, value)
    for name, text, attribute in (
        ("gpu_utilization_ratio", "Share of time in which the GPU computed.", "utilization"),
        ("gpu_memory_utilization_ratio", "Share of time in which GPU memory was used.", "memory_utilization"),
        ("gpu_memory_used_bytes", "GPU memory in use.", "memory_used"),
        ("gpu_memory_total_bytes", "GPU memory.", "memory_total"),
    ):
        family = GaugeMetricFamily(name, text, labels=("gpu", "name"))
        for gpu in reading.gpus:
            family.add_metric((str(gpu.gpu), gpu.name), getattr(gpu, attribute))
        yield family


def handler_families(versions: Iterable[tuple[tuple[str, str], CustomMetrics]]) -> Iterator[Metric]:
    """What handlers reported; labels are model, version and the handler's dimensions."""
    kinds: dict[str, str] = {}
    families: dict[str, Metric] = {}
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    dropped = CounterMetricFamily(
        "mlserve_handler_metrics_dropped", "Reports of handlers beyond 1000 series.", labels=("model", "version")
    )
    for version, custom in versions:
        dropped.add_metric(version, custom.dropped)
        rows: list[tuple[Series, float | Histogram]] = [*custom.values.items(), *custom.histograms.items()]
        for series, value in rows:
            name = _family_name(series, kinds)
            labels = _labels(version, series)
            identity = (name, frozenset(labels.items()))
            if identity in seen:  # the same number in two units, or dimensions that differ in illegal characters only
                continue
            seen.add(identity)
            family = families.get(name)
            if family is None:
                text = f"Reported by handlers, unit: {series.unit or 'unit'}."
                family = families[name] = _FAMILIES.get(series.kind, GaugeMetricFamily)(name, text)
            _add(family, labels, value)
    yield dropped
    yield from families.values()


def _family_name(series: Series, kinds: dict[str, str]) -> str:
    name = _NOT_IN_NAME.sub("_", series.name) or "unnamed"
    if name[0].isdigit() or _OWN.fullmatch(name):
        name = HANDLER_PREFIX + name
    if series.kind == "counter":
        name = name.removesuffix("_total")
    # A counter "x" is written as "x_total", so a gauge "x_total" would be in its way.
    if kinds.setdefault(name.removesuffix("_total"), series.kind) != series.kind:
        name = f"{name}_{series.kind}"
    return name


def _labels(version: tuple[str, str], series: Series) -> dict[str, str]:
    labels = {"model": version[0], "version": version[1]}
    for name, value in series.dimensions:
        label = _NOT_IN_LABEL.sub("_", name) or "_"
        if label[0].isdigit() or label in ("model", "version", "le") or label.startswith("__"):
            label = f"d_{label.lstrip('_')}"
        labels[label] = value
    return labels


def _add(family: Metric, labels: dict[str, str], value: float | Histogram) -> None:
    """Dimensions differ from series to series, so samples are added one by one and not by fixed label names."""
    if isinstance(value, Histogram):
        rows = value.cumulative()
        for bound, count in rows:
            family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
        family.add_sample(f"{family.name}_count", labels, rows[-1][1])
        family.add_sample(f"{family.name}_sum", labels, value.total)
    else:
        family.add_sample(family.name + ("_total" if family.type == "counter" else ""), labels, value)
