"""``mlserve validate``: a model in a real worker, on given inputs, in batches of several sizes. For CI scripts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlserve.cli.flags import with_settings
from mlserve.cli.loops import run_loop
from mlserve.cli.run import find_model, read_inputs
from mlserve.settings import Settings

if TYPE_CHECKING:
    from mlserve.cli.trial import Answer, Trial

RUNS = 3  # of each batch size; the quickest is shown, the first may pay for allocation


@dataclass
class Check:
    """One line of the result, and one test case of the JUnit file. ``failure`` is empty where it passed."""

    name: str
    said: str = ""
    failure: str = ""
    seconds: float = 0.0


@with_settings(only={"models.store"})
def validate(
    settings: Settings,
    model: Annotated[str, typer.Argument(help="An archive, a model file, a directory, or a model of the store.")],
    files: Annotated[list[Path] | None, typer.Option("--input", "-i", help="A request's body; repeat it.")] = None,
    data: Annotated[str, typer.Option("--data", "-d", help="JSON to send instead of a file.", metavar="JSON")] = "",
    content_type: Annotated[
        str, typer.Option(help="[default: from the file's name]", metavar="TYPE", show_default=False)
    ] = "",
    expect: Annotated[
        list[Path] | None, typer.Option(help="The right answer, one file for each input, in the same order.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=0, help="Largest batch. [default: the model's own]", show_default=False)
    ] = 0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far numbers may differ, absolutely or as a share of the larger.")
    ] = 1e-4,
    junit: Annotated[Path | None, typer.Option(help="Write the checks to this file as JUnit XML.")] = None,
) -> None:
    """Load a model in a worker, send the inputs in batches of 1, 2 and the batch size, and compare.

    Every request must be answered, an item must have the same answer whatever shares its batch, and it must be the
    expected one where that is given. Exits with 1 if a check failed.
    """
    inputs = [(given.body, given.content_type) for given in read_inputs(files or [], data, content_type)]
    if expect and len(expect) != len(inputs):
        raise typer.BadParameter(f"{len(expect)} files to expect for {len(inputs)} inputs")
    expected = [path.read_bytes() for path in expect or []]
    from mlserve.archive.requirements import installing

    with tempfile.TemporaryDirectory(prefix="mlserve-validate-") as scratch:
        spec = find_model(settings, model, "", Path(scratch), installing(settings))
        if batch_size:
            spec = replace(spec, batch_size=batch_size)
        checks = run_loop(_checked(settings, spec, inputs, expected, tolerance))
    for check in checks:
        typer.echo(f"{'failed' if check.failure else 'ok':<7} {check.name}: {check.failure or check.said}")
    if junit is not None:
        write_junit(junit, str(spec.key), checks)
    raise typer.Exit(1 if any(check.failure for check in checks) else 0)


async def _checked(
    settings: Settings, spec: Any, inputs: Sequence[tuple[bytes, str]], expected: Sequence[bytes], tolerance: float
) -> list[Check]:
    from mlserve.cli.trial import Trial
    from mlserve.engine.local import LocalEngine, available_cpus, load_options
    from mlserve.errors import ServeError

    options = replace(load_options(settings), retry_first_load=False)
    engine = LocalEngine(gpu_ids=(), cpus=available_cpus(), options=options)
    try:
        async with Trial(engine, spec) as trial:
            memory = trial.memory_bytes / 2**20
            loaded = Check("load", f"{trial.load_seconds:.2f} s, {memory:.0f} MiB resident", "", trial.load_seconds)
            return [loaded, *await _batches(trial, spec.batch_size, inputs, expected, tolerance)]
    except ServeError as error:
        return [Check("load", failure=f"{error.message}\n{error.detail}".rstrip())]
    finally:
        await engine.close()


async def _batches(
    trial: Trial, largest: int, inputs: Sequence[tuple[bytes, str]], expected: Sequence[bytes], tolerance: float
) -> list[Check]:
    alone: list[Answer] = []
    checks: list[Check] = []
    for size in sorted({1, min(2, largest), largest}):
        rounds = max(len(inputs), 1) if size == 1 else 1
        answers, best = [], float("inf")
        for turn in range(rounds):
            batch = [inputs[(turn + index) % len(inputs)] for index in range(size)]
            for _ in range(RUNS):
                found, seconds = await trial.send(batch)
                best = min(best, seconds)
            answers += found
        alone = alone or answers
        memory = trial.memory_bytes / 2**20
        said = f"{best * 1000:.1f} ms, {size / best:.1f} items/s, {memory:.0f} MiB resident"
        failure = "; ".join(dict.fromkeys(answer.error for answer in answers if answer.error))
        checks.append(Check(f"batch of {size}", said, failure, best))
        if size > 1 and not failure:
            checks.append(_agree(f"batch of {size} agrees with single items", answers, alone, tolerance))
    checks += _expected(alone, expected, tolerance)
    return checks


def _agree(name: str, answers: Sequence[Answer], alone: Sequence[Answer], tolerance: float) -> Check:
    from mlserve.cli.agreement import compare

    worst = 0.0
    for index, answer in enumerate(answers):
        found = compare(alone[index % len(alone)].body, answer.body, tolerance)
        if not found.same:
            return Check(name, failure=f"item {index} {found.text()}")
        worst = max(worst, found.error)
    return Check(name, f"largest difference {worst:.3g}")


def _expected(alone: Sequence[Answer], expected: Sequence[bytes], tolerance: float) -> Iterator[Check]:
    from mlserve.cli.agreement import compare

    for index, wanted in enumerate(expected):
        name = f"input {index} has the expected answer"
        found = compare(wanted, alone[index].body, tolerance)
        failure = "" if found.same else f"{found.text()}: {alone[index].body[:200]!r}"
        yield Check(name, f"largest difference {found.error:.3g}", failure)


def write_junit(path: Path, suite: str, checks: Sequence[Check]) -> None:
    """The checks in the XML format that CI systems read (one test suite, times in seconds)."""
    from xml.etree import ElementTree as Tree

    failures = sum(bool(check.failure) for check in checks)
    root = Tree.Element("testsuite", name=suite, tests=str(len(checks)), failures=str(failures))
    for check in checks:
        case = Tree.SubElement(root, "testcase", classname=suite, name=check.name, time=f"{check.seconds:.6f}")
        if check.failure:
            Tree.SubElement(case, "failure", message=check.failure.splitlines()[0]).text = check.failure
    Tree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
