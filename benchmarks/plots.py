"""Draw the results of the comparison: ``python plots.py FOLDER [NAME=TITLE…]``, the titles being those of the servers.

It runs in the environment ``compute``, which has matplotlib.

Throughput and p50/p99 against concurrency (no-op, gRPC), bars of throughput for the others, and the steady run
by minute; each as PNG and SVG beside the results.
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend is chosen first
from matplotlib import ticker

matplotlib.rcParams["svg.hashsalt"] = "mlserve"  # or ids in SVG files are others in every run

COLOURS = {
    "mlserve": "#d62728", "mlserve-pure": "#ff9896", "torchserve": "#8c564b", "triton": "#2ca02c",
    "mosec": "#1f77b4", "litserve": "#9467bd", "bentoml": "#e377c2", "ray": "#17becf", "mlserver": "#bcbd22",
    "fastapi": "#7f7f7f",
}  # fmt: skip
LINES = {"noop": "no-op", "grpc": "gRPC no-op"}  # the rows whose titles begin so
BARS = ("echo", "classify", "embed", "vad")
FIGURES = (("rate", "answers/s"), ("p50_ms", "median, ms"), ("p99_ms", "p99, ms"))


def middle(loads, name):
    """The median over rounds."""
    return statistics.median(load[name] for load in loads)


def save(figure, target):
    """As PNG and SVG, without a date or random ids inside, so that the same results give the same files."""
    figure.tight_layout()
    figure.savefig(target.with_suffix(".png"), dpi=130, bbox_inches="tight")
    figure.savefig(target.with_suffix(".svg"), metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def against_connections(rows, target, work, titles):
    """Three plots side by side, a line per server, both axes logarithmic; servers are named once, below."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 5))
    servers = [server for server in COLOURS if any(server in row["loads"] for row in rows)]
    for axis, (name, label) in zip(axes, FIGURES, strict=True):
        for server in servers:
            points = [(row["connections"], row["loads"][server]) for row in rows if server in row["loads"]]
            counts, values = [count for count, _ in points], [middle(loads, name) for _, loads in points]
            shown = {"color": COLOURS[server], "linewidth": 2.5 if server == "mlserve" else 1.2}
            axis.plot(counts, values, marker="o", markersize=4, label=titles.get(server, server), **shown)
        axis.set(xscale="log", yscale="log", xlabel="connections", ylabel=label, title=f"{work}: {label}")
        counts = [row["connections"] for row in rows]
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.grid(alpha=0.3)
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=len(names), frameon=False)
    save(figure, target)


def bars(rows, target, titles):
    """A group of bars per row: answers/s of each server, which stand above them, and the bare loop as a line."""
    figure, axes = plt.subplots(1, len(rows), figsize=(max(6, 4.5 * len(rows)), 4.5), squeeze=False)
    for axis, row in zip(axes[0], rows, strict=True):
        servers = [server for server in COLOURS if server in row["loads"]]
        values = [middle(row["loads"][server], "rate") for server in servers]
        names = [titles.get(server, server) for server in servers]
        shown = axis.bar(names, values, color=[COLOURS[server] for server in servers])
        axis.bar_label(shown, [f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" for value in values], fontsize=7)
        if row["loop"]:
            axis.axhline(statistics.median(row["loop"]), color="black", linestyle="--", linewidth=1, label="bare loop")
            axis.legend(fontsize=8)
        axis.margins(y=0.15)  # room for the legend
        axis.set_title(row["title"], fontsize=9)
        axis.set_ylabel("answers/s")
        axis.tick_params(axis="x", rotation=60, labelsize=8)
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


def main(folder, *titles):
    """A plot per result that has one."""
    named = dict(title.split("=", 1) for title in titles)
    for file in sorted(Path(folder).glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        target = Path(folder) / f"compare-{file.stem}"
        if file.stem in LINES:
            work = LINES[file.stem]
            against_connections([row for row in result["rows"] if row["title"].startswith(work)], target, work, named)
        elif file.stem == "steady":
            by_minute(result, target)
        elif file.stem in BARS:
            bars(result["rows"], target, named)


if __name__ == "__main__":
    main(*sys.argv[1:])
