"""``mlserve tune``: find the settings with which a model meets a latency target with the most answers per second."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlserve.cli.bench_input import STDOUT, check_writable
from mlserve.cli.flags import with_settings
from mlserve.cli.loops import run_loop
from mlserve.cli.run import find_model, read_inputs
from mlserve.cli.tune_progress import Budget
from mlserve.cli.tune_search import Slo, Trial, clients_text, predictions, setups_of, slos_of, trials, variations
from mlserve.errors import SettingError
from mlserve.load.units import numbers_of, seconds_of
from mlserve.settings import Settings

if TYPE_CHECKING:
    from mlserve.cli.tune_measure import Inputs
    from mlserve.cli.tune_search import Curve
    from mlserve.cli.tune_verify import Verified
    from mlserve.core.model import ModelSpec

MEASURING = 0.4  # of the time; the rest is for the settings that are verified
SHARE = 0.04  # of the time for one load, in these bounds of seconds
SHORTEST, LONGEST = 1.0, 10.0
BETTER = 1.02  # times as many answers make a variation the winner: less is noise
MOST_TRIALS = 4


def _option(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


Model = Annotated[str, typer.Argument(help="An archive, a model file, a directory, or a model of the store.")]
Slos = Annotated[list[str], _option("--slo", help="What must hold, like p99=50ms; several may be given.")]
Files = Annotated[list[Path], _option("--input", "-i", help="A request's body; several take turns. Default: zeros.")]
Data = Annotated[str, _option("--data", "-d", help="JSON to send instead of a file.")]
ContentType = Annotated[str, _option("--content-type", help="Instead of the one that follows from the file's name.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the configuration is written.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Write over a file that is there.")]
Anyway = Annotated[bool, typer.Option("--anyway", help="Write what comes nearest if nothing meets the target.")]
MaxBatch = Annotated[int, typer.Option(min=1, help="Largest batch to try.")]
Workers = Annotated[str, _option("--workers", help="Numbers of workers to try, like 1,2. Default: up to CPUs or GPUs.")]
Threads = Annotated[str, _option("--threads", help="Threads per worker to try. Default: the CPUs shared out.")]
AtOnce = Annotated[
    str, _option("--handler-threads", help="Batches that a worker computes at once. Default: one, and one per thread.")
]
Time = Annotated[str, typer.Option("--time", help="How long it may take, about.")]
JsonFile = Annotated[str, _option("--json", help="Write what was measured to this file; - is standard output.")]
Plot = Annotated[str, _option("--plot", help="Draw the batches to this .png or .svg (needs matplotlib).")]


@dataclass(frozen=True)
class Wanted:
    """What was asked for, checked."""

    slos: tuple[Slo, ...]
    inputs: Inputs
    max_batch: int
    workers: Sequence[int]
    threads: Sequence[int]
    at_once: Sequence[int]


@with_settings(only={"models.store", "gpu.ids"})
def tune(
    settings: Settings,
    model: Model,
    slo: Slos,
    files: Files = [],  # noqa: B006  # typer reads it, nobody changes it
    data: Data = "",
    content_type: ContentType = "",
    out: Out = Path("model-config.yaml"),
    force: Force = False,
    anyway: Anyway = False,
    max_batch: MaxBatch = 64,
    workers: Workers = "",
    threads: Threads = "",
    handler_threads: AtOnce = "",
    time: Time = "2m",
    json_file: JsonFile = "",
    plot: Plot = "",
) -> None:
    """Find the settings with which a model answers the most requests per second, and still in time.

    Batches of all sizes are measured in workers, and batch size, delay, workers, threads and batches at once are
    predicted from them. The best are verified in a server under load, and model-config.yaml is written with the one
    that holds. If none holds, nothing is written and the exit code is 1.
    """
    given = [(one.body, one.content_type) for one in read_inputs(files, data, content_type)] if files or data else []
    counts = (_numbers(workers, "--workers"), _numbers(threads, "--threads"))
    wanted = Wanted(slos_of(slo), given, max_batch, *counts, _numbers(handler_threads, "--handler-threads"))
    if out.exists() and not force:
        raise SettingError(f"{out} is there already: name another with --out, or write over it with --force")
    for option, file in (("--out", str(out)), ("--json", json_file), ("--plot", plot)):
        check_writable(option, file)
    most = seconds_of(time, "--time")
    if most <= 0:
        raise SettingError(f"--time: {time!r} is to be above 0")
    if plot:
        from mlserve.cli.bench_plot import check_plot

        check_plot(plot)
    from mlserve.archive.requirements import installing
    from mlserve.cli.tune_verify import told
    from mlserve.startup import TUNE_DIR, own_prefix

    with tempfile.TemporaryDirectory(prefix=own_prefix(TUNE_DIR)) as scratch, Budget(most) as budget:
        spec = find_model(settings, model, "", Path(scratch), installing(settings))
        curves, verified = search(settings, spec, wanted, budget)
        best = chosen(verified)
        nearest = best or min(verified, key=lambda one: one.strain)
        budget.close()
        text = _written(spec, nearest, wanted.slos)
        _tell(spec, wanted.slos, curves, verified, best, json_file, plot)
    if best is not None or anyway:
        out.write_text(text, encoding="utf-8")
    raise typer.Exit(_ending(best, told(nearest, wanted.slos), wanted.slos, out, anyway, budget.short))


def _numbers(text: str, name: str) -> list[int]:
    return [int(number) for number in numbers_of(text, name, whole=True)] if text else []


def search(
    settings: Settings, spec: ModelSpec, wanted: Wanted, budget: Budget
) -> tuple[Sequence[Curve], list[Verified]]:
    """Measure, predict, verify. Raises :class:`mlserve.errors.ServeError` for a model that does not load or answer."""
    from mlserve.cli import tune_measure
    from mlserve.engine.local import available_cpus

    slos = wanted.slos
    gpus = tune_measure.gpus_of(settings)
    used = 0 if spec.device_type == "cpu" else len(gpus)
    setups = setups_of(available_cpus(), used, wanted.workers, wanted.threads, at_once_of(spec, wanted.at_once))
    slowest = max(one.seconds for one in slos)
    limits = tune_measure.Limits(wanted.max_batch, slowest, budget.at(MEASURING), unchecked=bool(wanted.at_once))
    curves, inputs = run_loop(tune_measure.measure(settings, spec, setups, wanted.inputs, limits, budget.say))
    candidates = trials(predictions(curves, slos), curves, slos, MOST_TRIALS)
    verified: list[Verified] = []
    for trial in candidates:
        best = chosen(verified)
        if best is None or trial.rate > best.result.rate:  # the server adds to what was predicted
            _verify(spec, gpus, trial, inputs, slos, budget, verified)
    best = chosen(verified)
    if best is not None:
        for setting in variations(best.setting, slos, [len(body) for body, _ in inputs]):
            again = Trial(setting, (int(best.result.level),), best.result.rate)
            _verify(spec, gpus, again, inputs, slos, budget, verified)
    return curves, verified


def at_once_of(spec: ModelSpec, wanted: Sequence[int]) -> Sequence[int]:
    """Which numbers of batches at once to try, none for the usual ones. Raises :class:`SettingError` for several where
    the model has another way to fill its worker."""
    from mlserve.archive.spec import BESIDE_THREADS, OPTIONS

    other = next((name for name in BESIDE_THREADS if getattr(spec, name) > 0), None)
    if other is None:
        return wanted
    if max(wanted, default=1) > 1:
        raise SettingError(f"--handler-threads: the model has {OPTIONS[other].key}, which cannot go with it")
    return [1]


def _verify(
    spec: ModelSpec,
    gpus: Sequence[int],
    trial: Trial,
    inputs: Inputs,
    slos: Sequence[Slo],
    budget: Budget,
    verified: list[Verified],
) -> None:
    """Verify a setting, unless the time is over; the first is verified in any case."""
    from mlserve.cli.tune_verify import verify

    seconds = min(max(budget.seconds * SHARE, SHORTEST), LONGEST)
    if verified and not budget.allows(seconds * len(trial.clients)):
        budget.say(f"{trial}: not verified, the time is over")
        return
    with budget.lap():
        verified += verify(spec, gpus, trial, inputs, slos, seconds, budget.say)


def chosen(verified: Sequence[Verified]) -> Verified | None:
    """The fastest that meets the targets; of those that are equal but for noise, the one verified first."""
    best: Verified | None = None
    for one in verified:
        if one.met and (best is None or one.result.rate > BETTER * best.result.rate):
            best = one
    return best


def _written(spec: ModelSpec, one: Verified, slos: Sequence[Slo]) -> str:
    from mlserve.cli.tune_report import SAID, config_text, given_text

    text, name = given_text(spec)
    held = ", ".join(f"{slo.name} {one.result.quantile(slo.share) * 1000:.1f} ms" for slo in slos)
    said = f"{SAID}{one.result.rate:,.1f} answers/s for {clients_text(one.result.level)}, {held}"
    return config_text(text, one.setting.config(), name, said)


def _tell(
    spec: ModelSpec,
    slos: Sequence[Slo],
    curves: Sequence[Curve],
    verified: Sequence[Verified],
    best: Verified | None,
    json_file: str,
    plot: str,
) -> None:
    from mlserve.cli import tune_report

    if json_file:
        text = json.dumps(tune_report.document(spec, slos, curves, verified, best), indent=2) + "\n"
        if json_file == STDOUT:
            typer.echo(text, nl=False)
        else:
            Path(json_file).write_text(text, encoding="utf-8")
    if json_file != STDOUT:
        tune_report.show_curves(curves)
        tune_report.show_verified(verified)
    if plot:
        tune_report.draw(plot, curves, slos, best, f"{spec.key}: {', '.join(map(str, slos))}")


def _ending(best: Verified | None, said: str, slos: Sequence[Slo], out: Path, anyway: bool, short: bool) -> int:
    if best is not None:
        typer.echo(f"{out} is written: {said}", err=True)
        return 0
    targets = ", ".join(map(str, slos))
    wrote = f"{out} is written all the same" if anyway else "nothing is written"
    more = " The time was over before all was tried: give it more with --time." if short else ""
    typer.echo(f"mlserve: error: no setting meets {targets}; {wrote}. Nearest: {said}.{more}", err=True)
    return 1
