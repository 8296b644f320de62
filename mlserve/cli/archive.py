"""``mlserve archive``: pack a model with torch-model-archiver's flags; look into, check, unpack and compare archives.

Without a sub-command it packs, so that a script changes one word. Results go to standard output (JSON with ``--json``),
progress and errors to standard error.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlserve.errors import ServeError

if TYPE_CHECKING:
    from mlserve.archive import ArchiveInfo

EXIT_FAILED, EXIT_USAGE = 1, 2
EXIT_CODES = (
    "Exit codes: 0 done (verify: whole, diff: the same), 1 failed (verify: damaged, diff: different), 2 wrong usage."
)

app = typer.Typer(
    name="archive",
    help="Pack a model; inspect, verify, unpack and compare archives.",
    epilog=EXIT_CODES,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(str, Enum):
    """``--archive-format``."""

    default = "default"
    zip_store = "zip-store"
    tgz = "tgz"
    no_archive = "no-archive"


class Runtime(str, Enum):
    """``--runtime``."""

    python = "python"
    python3 = "python3"
    lsp = "LSP"


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
BuildEnv = Annotated[
    bool, typer.Option("--build-env", help="Build the environment of its requirements for servers on this machine.")
]
AutoConfig = Annotated[
    bool, typer.Option("--auto-config", help="Ask the model for inputs, outputs and batch, and write what -c lacks.")
]
Archive = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A .mar, a .tar.gz or an unpacked model.")]


@app.callback(invoke_without_command=True, epilog=EXIT_CODES)
def archive(
    context: typer.Context,
    model_name: Annotated[str, typer.Option(help="Name of the model and of the archive.")] = "",
    version: Annotated[str, typer.Option("--version", "-v", help="Version of the model.")] = "",
    handler: Annotated[str, typer.Option(help="Built-in handler, FILE.py, or FILE.py:FUNCTION.")] = "",
    model_file: Annotated[str | None, typer.Option(help="Python file with the model's one nn.Module class.")] = None,
    serialized_file: Annotated[str | None, typer.Option(help="Weights or exported model: .pt, .onnx, ...")] = None,
    extra_files: Annotated[
        str | None, typer.Option(help="Comma-separated files, globs, and directories, whose tree is kept.")
    ] = None,
    runtime: Annotated[Runtime, typer.Option(help="What runs the handler.")] = Runtime.python,
    export_path: Annotated[
        str | None, typer.Option(help="Directory for the archive; the current one if unset.")
    ] = None,
    archive_format: Annotated[Format, typer.Option(help="Container of the archive.")] = Format.default,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite an existing archive.")] = False,
    requirements_file: Annotated[
        str | None, typer.Option("--requirements-file", "-r", help="pip requirements of the model.")
    ] = None,
    config_file: Annotated[
        str | None, typer.Option("--config-file", "-c", help="model-config.yaml: batch size, timeouts, workers, ...")
    ] = None,
    auto_config: AutoConfig = False,
    build_env: BuildEnv = False,
    as_json: Json = False,
) -> None:
    """Pack a model into an archive, or look at one with a command below.

    The same inputs give the same bytes; SOURCE_DATE_EPOCH sets the date in the archive.
    """
    given = {"--model-name": model_name, "--version": version, "--handler": handler}
    if context.invoked_subcommand is not None:
        misplaced = [*(option for option, value in given.items() if value), *(["--json"] if as_json else [])]
        if misplaced:
            context.fail(f"{misplaced[0]} packs a model here; options of {context.invoked_subcommand} come after it")
        return
    if build_env and not requirements_file:
        context.fail("--build-env needs --requirements-file")
    if missing := [option for option, value in given.items() if not value]:
        context.fail(f"Missing option {', '.join(missing)} (or give a command, see --help)")
    arguments: dict[str, Any] = {
        "model_name": model_name,
        "version": version,
        "handler": handler,
        "model_file": model_file,
        "serialized_file": serialized_file,
        "extra_files": extra_files,
        "runtime": runtime.value,
        "export_path": export_path,
        "archive_format": archive_format.value,
        "force": force,
        "requirements_file": requirements_file,
        "config_file": config_file,
    }
    path = _packed(arguments, auto_config)
    _report_packed(path, as_json)
    if build_env:
        _build_environment(path, model_name)


@app.command(epilog=EXIT_CODES)
def inspect(path: Archive, as_json: Json = False) -> None:
    """Show manifest, members, configuration, and which code will run."""
    with _errors():
        from mlserve.archive import inspect as look

        info = look(path)
    if as_json:
        _print_json(_info_dict(info))
    else:
        _show(info)


@app.command(epilog=EXIT_CODES)
def verify(path: Archive, as_json: Json = False) -> None:
    """Read an archive to the last byte and compare checksums. Exits with 1 if it is damaged or would not load."""
    with _errors():
        from mlserve.archive import verify as check

        report = check(path)
    if as_json:
        _print_json(
            {
                "path": report.path,
                "ok": report.ok,
                "checked": report.checked,
                "checksums": report.checksums,
                "problems": [{"member": p.member, "reason": p.reason} for p in report.problems],
            }
        )
    elif report.ok:
        against = f"{report.checksums} checksums agree" if report.checksums else "it has no checksums to compare"
        typer.echo(f"{path}: OK, {report.checked} members read, {against}")
    else:
        for problem in report.problems:
            typer.echo(_plain(f"{path}: {problem.member + ': ' if problem.member else ''}{problem.reason}"))
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog=EXIT_CODES)
def unpack(
    path: Archive,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that is new or empty.")],
    as_json: Json = False,
) -> None:
    """Unpack an archive into DIR: all of it, checked, or nothing."""
    with _errors():
        from mlserve.archive import unpack as extract

        target = extract(path, directory)
    files = sum(1 for file in target.rglob("*") if file.is_file())
    if as_json:
        _print_json({"path": str(target), "files": files})
    else:
        typer.echo(f"unpacked {files} files into {target}")


@app.command(epilog=EXIT_CODES)
def diff(first: Archive, second: Archive, as_json: Json = False) -> None:
    """Compare the files and manifests of two archives. Exits with 1 if they differ."""
    with _errors():
        from mlserve.archive import diff as compare

        found = compare(first, second)
    if as_json:
        changes = [{"what": change.what, "a": change.a, "b": change.b} for change in found.changes]
        _print_json({"a": found.a, "b": found.b, "same": found.same, "changes": changes})
    else:
        for change in found.changes:
            sign = "+" if change.a is None else "-" if change.b is None else "~"
            typer.echo(_plain(f"{sign} {change.what}"))
            for mark, text in (("<", change.a), (">", change.b)):
                if text is not None:
                    typer.echo(_plain(f"    {mark} {text}"))
        if found.same:
            typer.echo("the same files and the same manifest")
    if not found.same:
        raise typer.Exit(EXIT_FAILED)


def _packed(arguments: dict[str, Any], auto_config: bool) -> Path:
    with _errors(), tempfile.TemporaryDirectory(prefix="mlserve-archive-") as scratch:
        from mlserve.archive import pack

        _check_config(arguments["config_file"])
        if auto_config:
            from mlserve.cli.auto_config import configured

            config_file = configured(arguments, Path(scratch), lambda line: typer.echo(_plain(line), err=True))
            arguments = {**arguments, "config_file": config_file}
        with _progress(arguments["model_name"]) as progress:
            return pack(**arguments, progress=progress)


def _check_config(config_file: str | None) -> None:
    """Refuse a configuration that no server would take as it is meant, before anything is packed."""
    if not config_file or not Path(config_file).is_file():
        return  # packing says what is wrong with a missing one
    from mlserve.archive.spec import check_config
    from mlserve.archive.yamlfile import parse_config

    for problem in check_config(parse_config(Path(config_file).read_bytes(), config_file), config_file):
        typer.echo(_plain(f"mlserve archive: warning: {problem}"), err=True)


@contextmanager
def _errors() -> Iterator[None]:
    """One line on standard error and exit code 1 for whatever is wrong with the input."""
    try:
        yield
    except ServeError as error:
        typer.echo(_plain(f"mlserve archive: error: {error.message}"), err=True)
        raise typer.Exit(EXIT_FAILED) from None
    except OSError as error:
        typer.echo(_plain(f"mlserve archive: error: {error}"), err=True)
        raise typer.Exit(EXIT_FAILED) from None


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; elsewhere a line every ten seconds, so that a long job is seen to move and a short one
    stays quiet."""
    if not sys.stderr.isatty():
        yield _lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"packing {name}", total=None)
        yield lambda member, done, total: bar.update(task, completed=done, total=total, description=f"packing {member}")


def _lines(name: str, clock: Callable[[], float] = time.monotonic) -> Callable[[str, int, int], None]:
    last = clock()

    def progress(member: str, done: int, total: int) -> None:
        nonlocal last
        if clock() - last >= 10:
            last = clock()
            typer.echo(f"packing {name}: {100 * done // max(1, total)}% ({member})", err=True)

    return progress


def _build_environment(path: Path, model_name: str) -> None:
    with _errors():
        from mlserve.cli.build_env import build_environment

        build_environment(path, model_name, lambda text: typer.echo(_plain(text), err=True))


def _report_packed(path: Path, as_json: bool) -> None:
    import hashlib

    if path.is_dir():
        size, digest = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()), ""
    else:
        size, sha = path.stat().st_size, hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                sha.update(piece)
        digest = sha.hexdigest()
    if as_json:
        _print_json({"path": str(path), "bytes": size, "sha256": digest})
    else:
        typer.echo(f"wrote {path} ({_bytes(size)}{', sha256 ' + digest if digest else ''})")


def _info_dict(info: ArchiveInfo) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(info), "unpacked_size": info.unpacked_size}


def _show(info: ArchiveInfo) -> None:
    from mlserve.cli.tables import show_table

    typer.echo(_plain(f"{info.path}: {info.kind}, {_bytes(info.size)}, unpacked {_bytes(info.unpacked_size)}"))
    where = {
        "archive": f"{info.handler_file} in the archive",
        "built-in": "built into mlserve",
        "environment": "neither in the archive nor built in",
        "none": "",
    }[info.handler_source]
    for label, value in (
        ("model", f"{info.model_name} {info.version}".strip()),
        ("runtime", info.runtime),
        ("handler", f"{info.handler} ({where})" if info.handler else ""),
        ("function", info.function or ("handle, or the handler's class" if info.handler else "")),
        ("model file", info.model_file),
        ("weights", info.serialized_file),
        ("requirements", ", ".join(info.requirements)),
    ):
        if value:
            typer.echo(_plain(f"  {label:<13}{value}"))
    if info.manifest is not None:
        shown = {key: value for key, value in info.manifest.items() if key != "checksums"}
        typer.echo(f"manifest\n{json.dumps(shown, indent=2)}")
    if info.config:
        typer.echo(f"config\n{json.dumps(info.config, indent=2, default=str)}")
    rows = [[member.name, _bytes(member.size)] for member in sorted(info.members, key=lambda member: member.name)]
    show_table(["member", "size"], rows)
    for problem in info.problems:
        typer.echo(_plain(f"problem: {problem}"))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _plain(text: str) -> str:
    """Without control characters: what an archive says must not move the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _bytes(count: int) -> str:
    """1536 -> ``1.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
