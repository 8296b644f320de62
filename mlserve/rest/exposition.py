"""Prometheus text as TorchServe writes it: a comma behind each label, so that patterns made for it match.

``prometheus_client`` leaves that comma out; the format allows both. mlserve's own families are written the same way
when they are beside TorchServe's, so that one answer has one style.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import Metric

from mlserve.protocols.ts_metrics import Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

Sample = tuple[str, Sequence[tuple[str, str]], float]  # name, labels, value


class Shown(NamedTuple):
    """A family as it is written."""

    name: str
    kind: str
    text: str
    samples: Iterable[Sample]


def write(families: Iterable[Shown], names: Collection[str] = ()) -> bytes:
    """The text. ``names`` keeps only samples of those names, and families that have some."""
    lines: list[str] = []
    for family in families:
        samples = [sample for sample in family.samples if not names or sample[0] in names]
        if names and not samples:
            continue
        lines.append(f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n")
        for name, labels, value in samples:
            inside = "".join([f'{label}="{text.translate(_ESCAPES)}",' for label, text in labels])
            lines.append(f"{name}{{{inside}}} {number(value)}\n" if inside else f"{name} {number(value)}\n")
    return "".join(lines).encode()


def number(value: float) -> str:
    """With a decimal point, which TorchServe's numbers always have: 5.0, 1.5e+16, +Inf."""
    value = float(value)
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if value != value else repr(value)


def own_families(metrics: Iterable[Metric]) -> Iterator[Shown]:
    """mlserve's families: their counters are named ``_total``, as ``prometheus_client`` writes them in this format."""
    for metric in metrics:
        name = metric.name + ("_total" if metric.type == "counter" else "")
        samples = [(sample.name, tuple(sample.labels.items()), sample.value) for sample in metric.samples]
        yield Shown(name, metric.type, metric.documentation, samples)


def torchserve_families(families: Iterable[Family]) -> Iterator[Shown]:
    """TorchServe's: a name is taken as it is, a metric without series yet has only its two head lines."""
    taken: set[str] = set()
    for family in families:
        declared = family.declared
        name = _legal(declared.name, _NOT_IN_NAME)
        if name in taken:  # two names that differ in illegal characters only
            continue
        taken.add(name)
        text = f"Torchserve prometheus {declared.kind} metric with unit: {declared.unit}".replace("\n", " ")
        yield Shown(name, declared.kind, text, _samples(name, family))


def _samples(name: str, family: Family) -> Iterator[Sample]:
    labels = tuple(_legal(label, _NOT_IN_LABEL) for label in family.declared.labels)
    for texts, value in family.values.items():
        yield name, tuple(zip(labels, texts, strict=True)), value
    for texts, histogram in family.histograms.items():
        pairs = tuple(zip(labels, texts, strict=True))
        rows = histogram.cumulative()
        for bound, count in rows:
            yield f"{name}_bucket", (*pairs, ("le", bound)), count
        yield f"{name}_count", pairs, rows[-1][1]
        yield f"{name}_sum", pairs, histogram.total


def _legal(name: str, illegal: re.Pattern[str]) -> str:
    clean = illegal.sub("_", name)
    return f"_{clean}" if clean[:1].isdigit() else clean


def readings(families: Iterable[Family], values: Mapping[str, Sequence[tuple[tuple[str, ...], float]]]) -> None:
    """Put readings of the machine, by metric name, into families that were copied for one answer."""
    for family in families:
        for labels, value in values.get(family.declared.name, ()):
            if len(labels) == len(family.declared.labels):
                family.update(labels, value)
