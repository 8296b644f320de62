"""Draw the results of the comparison: ``python plots.py FOLDER`` in the environment ``compute``, which has matplotlib.

Throughput and p50/p99 against concurrency (no-op), throughput against size (echo), and bars for the models; each as PNG
and SVG beside the results.
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend is chosen first

COLOURS = {
    "mlserve": "#d62728", "mlserve-pure": "#ff9896", "torchserve": "#8c564b", "triton": "#2ca02c",
    "mosec": "#1f77b4", "litserve": "#9467bd", "bentoml": "#e377c2", "ray": "#17becf", "mlserver": "#bcbd22",
    "fastapi": "#7f7f7f",
}  # fmt: skip
FIGURES = (("rate", "answers/s"), ("p50_ms", "median, ms"), ("p99_ms", "p99, ms"))


def middle(loads, name):
    """The median over rounds."""
    return statistics.median(load[name] for load in loads)


def save(figure, target):
    """As PNG and SVG, without a date inside, so that the same results give the same files."""
    figure.tight_layout()
    figure.savefig(target.with_suffix(".png"), dpi=130)
    figure.savefig(target.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


def against_connections(result, target):
    """Three plots side by side, a line per server, both axes logarithmic."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    for axis, (name, label) in zip(axes, FIGURES, strict=True):
        for server in sorted({server for row in result["rows"] for server in row["loads"]}, key=list(COLOURS).index):
            points = [(row["connections"], row["loads"][server]) for row in result["rows"] if server in row["loads"]]
            values = [middle(loads, name) for _, loads in points]
            width = 2.5 if server == "mlserve" else 1.2
            counts = [count for count, _ in points]
            axis.plot(counts, values, marker="o", markersize=4, color=COLOURS[server], linewidth=width, label=server)
        axis.set(xscale="log", yscale="log", xlabel="connections", ylabel=label, title=f"no-op: {label}")
        counts = [row["connections"] for row in result["rows"]]
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    save(figure, target)


def bars(result, target, name):
    """A group of bars per row: answers/s of each server, and the bare loop as a line."""
    rows = result["rows"]
    figure, axes = plt.subplots(1, len(rows), figsize=(max(6, 4.5 * len(rows)), 4.5), squeeze=False)
    for axis, row in zip(axes[0], rows, strict=True):
        servers = [server for server in COLOURS if server in row["loads"]]
        values = [middle(row["loads"][server], "rate") for server in servers]
        axis.bar(servers, values, color=[COLOURS[server] for server in servers])
        if row["loop"]:
            axis.axhline(statistics.median(row["loop"]), color="black", linestyle="--", linewidth=1, label="bare loop")
            axis.legend(fontsize=8)
        axis.set_title(row["title"], fontsize=9)
        axis.set_ylabel("answers/s")
        axis.tick_params(axis="x", rotation=60, labelsize=8)
        if name == "echo":
            axis.set_yscale("log")
    save(figure, target)


def by_minute(result, target):
    """The steady run: p50 and p99, and the memory of front end and workers, by minute."""
    minutes = result["minutes"]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    numbers = [(number + 1) * result["seconds_each"] / 60 for number in range(len(minutes))]
    for name in ("p50_ms", "p99_ms"):
        axes[0].plot(numbers, [minute[name] for minute in minutes], marker="o", label=name.removesuffix("_ms"))
    for name in ("frontend_pss", "workers_pss"):
        axes[1].plot(numbers, [minute[name] / 2**20 for minute in minutes], marker="o", label=name.removesuffix("_pss"))
    for axis, label in zip(axes, ("ms", "PSS, MiB"), strict=True):
        axis.set(xlabel="minutes", ylabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, target)


def main(folder):
    """A plot per result that has one."""
    for file in sorted(Path(folder).glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        target = Path(folder) / f"compare-{file.stem}"
        if file.stem == "noop":
            against_connections(result, target)
        elif file.stem == "steady":
            by_minute(result, target)
        elif file.stem in ("echo", "classify", "embed", "vad"):
            bars(result, target, file.stem)


if __name__ == "__main__":
    main(sys.argv[1])
