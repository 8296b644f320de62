"""What ``mlserve tune`` shows and writes: tables, the JSON document, the plot, model-config.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserve import __version__
from mlserve.archive.yamlfile import parse_config
from mlserve.cli.tables import show_table
from mlserve.cli.tune_search import Curve, Setup, Slo
from mlserve.cli.tune_verify import Verified, tuned_keys, without
from mlserve.errors import ArchiveError
from mlserve.load.units import duration_text

if TYPE_CHECKING:
    from mlserve.core.model import ModelSpec

SAID = "mlserve tune: "  # the comment of a tuning begins so, and is replaced by that of the next
CURVE = ("WORKERS", "BATCH", "MEDIAN", "SLOW", "ITEMS/S")
CHECKED = ("WORKERS", "BATCH", "POLICY", "CLIENTS", "PER S", "P50", "P99", "TARGET")  # fits in 80 columns


def show_curves(curves: Sequence[Curve]) -> None:
    """A line for each measured batch."""
    rows = []
    for curve in curves:
        setup = curve.setup
        for point in curve.points:
            rate = setup.batches * point.size / point.median
            times = (duration_text(point.median), duration_text(point.slow))
            rows.append([_workers(setup), str(point.size), *times, f"{rate:,.1f}"])
    show_table(CURVE, rows, title="Batches, in workers without a server")


def show_verified(verified: Sequence[Verified]) -> None:
    """A line for each setting that was loaded."""
    rows = []
    for one in verified:
        setting, result = one.setting, one.result
        setup = (_workers(setting.setup), str(setting.batch_size), f"{setting.policy} {setting.delay_ms:g} ms")
        times = [duration_text(result.quantile(share)) for share in (0.5, 0.99)]
        verdict = "met" if one.met else f"{result.error_count:,} errors" if result.error_count else "not met"
        load = (f"{result.level:,.0f}", f"{result.rate:,.1f}")
        rows.append([*setup, *load, *times, verdict])
    show_table(CHECKED, rows, title="Settings, in a server under load")


def _workers(setup: Setup) -> str:
    if setup.at_once > 1:  # what each of the batches has
        return f"{setup.workers} x {setup.at_once}x{max(1, setup.threads // setup.at_once)} thr"
    return f"{setup.workers} x {setup.threads} thr" if setup.threads else str(setup.workers)


def document(
    spec: ModelSpec, slos: Sequence[Slo], curves: Sequence[Curve], verified: Sequence[Verified], best: Verified | None
) -> dict[str, Any]:
    """Everything that was measured, as JSON can hold it; times are in milliseconds."""
    return {
        "mlserve": __version__,
        "model": str(spec.key),
        "slo": {slo.name: slo.seconds * 1000 for slo in slos},
        "curves": [
            {
                "workers": curve.setup.workers,
                "threads": curve.setup.threads,
                "handlerThreads": curve.setup.at_once,
                "points": [
                    {"batchSize": point.size, "medianMs": point.median * 1000, "slowMs": point.slow * 1000}
                    for point in curve.points
                ],
            }
            for curve in curves
        ],
        "verified": [{"config": one.setting.config(), "met": one.met, **one.result.to_dict()} for one in verified],
        "best": best.setting.config() if best is not None else None,
    }


def config_text(text: str, config: Mapping[str, Any], name: str, said: str) -> str:
    """The model's configuration ``text`` with ``config`` in place of what it said about the same; its comments and
    everything else stay. ``said`` becomes a comment."""
    import yaml

    keys = "|".join(sorted(map(re.escape, filter(None, tuned_keys()))))
    kept = re.sub(rf"(?m)^(?:(?:{keys})[ \t]*:|# {re.escape(SAID)})[^\n]*(?:\n|$)", "", text).rstrip()
    new = yaml.safe_dump(dict(config), sort_keys=False)
    together = (f"{kept}\n\n" if kept else "") + f"# {said}\n{new}"
    before = parse_config(text.encode(), name) if text.strip() else {}
    wanted = {**without(before), **config}
    try:
        if parse_config(together.encode(), name) == wanted:
            return together
    except ArchiveError:
        pass  # it cannot be changed line by line ({…} on top)
    return f"# {said}\n" + yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def given_text(spec: ModelSpec) -> tuple[str, str]:
    """The model's own configuration file, and its name; ("", a usual name) without one."""
    from mlserve.archive.yamlfile import DEFAULT_CONFIG_NAME

    name = str((spec.manifest.get("model") or {}).get("configFile") or DEFAULT_CONFIG_NAME)
    path = Path(spec.model_dir) / name
    return (path.read_text(encoding="utf-8") if path.is_file() and spec.config else ""), name


def draw(file: str, curves: Sequence[Curve], slos: Sequence[Slo], best: Verified | None, title: str) -> None:
    """Batches by size: seconds and items per second, with the target and the chosen size."""
    from mlserve.cli.bench_plot import pyplot

    figure_of, _ = pyplot()
    figure = figure_of(figsize=(7.5, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    sizes = sorted({point.size for curve in curves for point in curve.points})
    for curve in curves:
        own = [point.size for point in curve.points]
        rates = [curve.setup.batches * point.size / point.median for point in curve.points]
        (line,) = above.plot(own, rates, "o-", label=str(curve.setup))
        below.plot(own, [point.median * 1000 for point in curve.points], "o-", color=line.get_color())
        below.plot(own, [point.slow * 1000 for point in curve.points], ":", color=line.get_color())
    for slo in slos:
        below.axhline(slo.seconds * 1000, color="#cf222e", linestyle="--", label=str(slo))
    if best is not None:
        for axes in (above, below):
            axes.axvline(best.setting.batch_size, color="#57606a", linestyle=":", label="chosen")
    above.set_ylabel("items per second, all workers")
    above.set_ylim(bottom=0)
    below.set_ylabel("a batch, ms (dotted: slow ones)")
    below.set_ylim(bottom=0)
    below.set_xlabel("batch size")
    if len(sizes) > 1:
        below.set_xscale("log", base=2)
    below.set_xticks(sizes, [str(size) for size in sizes])
    for axes in (above, below):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=130)
