"""``mlserve run``: one batch through a model's handler in this process, without a server.

The handler is found, loaded and called by the same code as in a worker, so rows, batches, refusals and answers are what
they will be when served. There is no thread and no pipe around it and standard input is left alone: ``breakpoint()``,
``pdb`` and an IDE's debugger work as in any program.
"""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from mlserve.cli.flags import with_settings
from mlserve.cli.loops import run_loop
from mlserve.core.model import ModelSpec
from mlserve.errors import ModelNotFound
from mlserve.settings import Settings

if TYPE_CHECKING:
    from mlserve.archive.requirements import Installing


class Input(NamedTuple):
    """A request's body and its content type; "" is none."""

    body: bytes
    content_type: str


@with_settings(only={"models.store"})
def run(
    settings: Settings,
    model: Annotated[str, typer.Argument(help="A handler file, a directory, an archive, or a model of the store.")],
    files: Annotated[
        list[Path] | None, typer.Option("--input", "-i", help="A file to send; repeat it to send several as one batch.")
    ] = None,
    data: Annotated[str, typer.Option("--data", "-d", help="JSON to send instead of a file.", metavar="JSON")] = "",
    content_type: Annotated[
        str, typer.Option(help="[default: from the file's name]", metavar="TYPE", show_default=False)
    ] = "",
    batch: Annotated[
        int, typer.Option(min=0, help="Requests in the batch; the inputs are repeated to fill it.", show_default=False)
    ] = 0,
    repeat: Annotated[int, typer.Option(min=1, help="How often to send the batch; the last answer is shown.")] = 1,
    handler: Annotated[str, typer.Option(help="Use this handler instead of the model's own.", metavar="NAME")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Ask for an explanation instead.")] = False,
    gpu: Annotated[int | None, typer.Option(min=0, help="Run on this GPU, not on the CPU.", show_default=False)] = None,
) -> None:
    """Run a handler on one input in this process: no server, breakpoints work.

    The answer goes to standard output, timings to standard error. Exits with 1 if the handler failed or refused.
    """
    inputs = read_inputs(files or [], data, content_type)
    inputs = [inputs[index % len(inputs)] for index in range(batch or len(inputs))]
    logging.basicConfig(level=settings.log.level.upper(), format="%(levelname)s %(name)s: %(message)s")
    # What the handler raised is printed below, without the frames of the worker's code around it.
    logging.getLogger("mlserve.worker").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="mlserve-run-") as scratch:
        try:
            spec = find_model(settings, model, handler, Path(scratch))
            process = InProcess(settings, spec, gpu)
            typer.echo(f"loaded {spec.handler} in {process.load_seconds:.2f} s", err=True)
            reports = [process.send(inputs, explain=explain) for _ in range(repeat)]
        except HandlerFailed as failure:
            typer.echo(failure.text, err=True)
            raise typer.Exit(1) from None
        several = len(inputs) > 1
        good = [show(*answer, index if several else None) for index, answer in enumerate(reports[-1].answers)]
    if process.traceback:
        typer.echo(process.traceback, err=True)
    typer.echo(timings([report.seconds for report in reports], len(inputs)), err=True)
    raise typer.Exit(0 if all(good) else 1)


def read_inputs(files: Sequence[Path], data: str, content_type: str) -> list[Input]:
    """What to send. Raises ``typer.BadParameter`` for both or neither, and for a file that cannot be read."""
    if bool(files) == bool(data):
        raise typer.BadParameter("give the input either with --input FILE or with -d JSON")
    if data:
        return [Input(data.encode(), content_type or "application/json")]
    return [Input(_read(path), content_type or mimetypes.guess_type(path.name)[0] or "") for path in files]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"--input: cannot read {path}: {error.strerror or error}") from None


def find_model(
    settings: Settings, model: str, handler: str, scratch: Path, installing: Installing | None = None
) -> ModelSpec:
    """Unpack and describe what the user named: a path, or a model of the model store.

    Nothing is installed for it unless ``installing`` says so: a handler in this process has this process's packages.
    """
    from mlserve.archive.store import ModelStore

    values = {item.name: getattr(settings.defaults, item.name) for item in fields(settings.defaults)}
    store = ModelStore(
        Path(settings.models.store) if settings.models.store else None,
        work_dir=scratch,
        defaults=values,
        model_settings=settings.model,
        allowed_urls=(),
        default_handler=settings.models.default_handler,
        installing=installing,
    )
    overrides = {"handler": handler} if handler else {}
    try:
        return run_loop(store.resolve_local(model, dict(overrides)))
    except ModelNotFound:
        if not settings.models.store or Path(model).suffix:
            raise
        return run_loop(store.resolve_local(f"{model}.mar", overrides))


class HandlerFailed(Exception):
    """The handler could not be loaded; ``text`` is its traceback."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Report(NamedTuple):
    """One batch: (item result, body) of each request, and seconds by phase."""

    answers: Sequence[tuple[Any, Any]]
    seconds: Mapping[str, float]


class InProcess:
    """A loaded handler with the worker's own loader and runner around it, and no link to a server."""

    def __init__(self, settings: Settings, spec: ModelSpec, gpu: int | None) -> None:
        from mlserve.compat.finder import install
        from mlserve.wire.payload import Load
        from mlserve.worker.context import make_context
        from mlserve.worker.loader import LoadError, load
        from mlserve.worker.rows import RowDecoder
        from mlserve.worker.runner import Runner

        request = Load(
            spec.key.name, spec.key.version, spec.model_dir, spec.handler, dict(spec.manifest), dict(spec.config)
        )
        request.gpu_id, request.batch_size, request.isolate_errors = gpu, spec.batch_size, spec.isolate_errors
        request.decode_input = settings.defaults.decode_input
        request.reject_invalid_json = settings.defaults.reject_invalid_json
        request.strict_results = settings.defaults.strict_results
        request.limit_max_image_pixels = settings.models.limit_max_image_pixels
        self.traceback = ""
        self.context = make_context(request)
        started = time.perf_counter()
        os.chdir(spec.model_dir)
        install()
        try:
            entry = load(request.handler, request.model_dir, self.context, _finish, settings.models.envelope)
        except LoadError as error:
            raise HandlerFailed(str(error)) from None
        except Exception as error:
            raise HandlerFailed(handler_traceback(error)) from error
        self.load_seconds = time.perf_counter() - started
        entry.call = self._watched(entry.call)
        self._rows = RowDecoder(request, None)
        self._runner = Runner(entry, self.context, request, self._rows, cast(Any, Pieces()), _finish)

    def send(self, inputs: Sequence[Input], *, explain: bool = False) -> Report:
        """Run one batch."""
        import msgspec

        from mlserve.wire.payload import BatchMeta, ItemMeta, PartMeta
        from mlserve.worker.runner import Work

        items = []
        for index, given in enumerate(inputs):
            headers = [(b"Content-Type", given.content_type.encode())] if given.content_type else []
            part = PartMeta("body", given.content_type, len(given.body))
            items.append(ItemMeta(f"run-{index}", [part], headers, explain))
        body = memoryview(b"".join(given.body for given in inputs))
        work = Work(0, msgspec.msgpack.encode(BatchMeta(items)), body, time.monotonic())
        meta, bodies = self._runner.handle(work)
        phases = {name: getattr(meta, name) for name in ("preprocess", "inference", "postprocess")}
        return Report(list(zip(meta.items, bodies, strict=True)), {**phases, "total": meta.finished - meta.started})

    def _watched(self, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """``call``, keeping the traceback of what it raises."""
        from mlserve.worker.failures import refusal

        def watched(rows: Any, context: Any) -> Any:
            try:
                return _finish(call(rows, context))
            except Exception as error:
                if refusal(error) is None:  # else it is an answer
                    self.traceback = handler_traceback(error)
                raise

        return watched


class Pieces:
    """Takes the place of the link to the server: pieces of streamed answers go to standard output as they come."""

    def send(self, kind: int, batch_id: int, meta: bytes, bodies: Sequence[bytes]) -> None:
        """Write the pieces out."""
        for body in bodies:
            sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()


def _finish(value: Any) -> Any:
    """Run a coroutine to its end; anything else is a result already."""
    if not hasattr(value, "__await__"):
        return value
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
    return _loop.run_until_complete(value)


_loop: asyncio.AbstractEventLoop | None = None


def handler_traceback(error: BaseException) -> str:
    """The traceback from the handler's first frame on: the code that loads and calls it is of no interest here."""
    skipped = (str(Path(__file__).resolve().parents[1] / "worker"), __file__, "<frozen importlib")
    tail: TracebackType | None = error.__traceback__
    while tail is not None and tail.tb_frame.f_code.co_filename.startswith(skipped):
        tail = tail.tb_next
    return "".join(traceback.format_exception(type(error), error, tail)).rstrip()


def show(item: Any, body: Any, index: int | None) -> bool:
    """Print one answer; ``index`` is its place in a batch of several. False if it is a failure."""
    name = "" if index is None else f"request {index}: "
    if item.error:
        what = f"refused with status {item.status}" if item.status != 200 else item.error
        typer.echo(f"{name}{what}: {item.message}", err=True)
        return False
    if item.status != 200:
        typer.echo(f"{name}status {item.status} {item.reason}".rstrip(), err=True)
    text = bytes(body)
    if sys.stdout.isatty() and not _printable(text):
        typer.echo(f"({len(text)} bytes of {item.content_type or 'binary data'})")
    else:
        sys.stdout.buffer.write(text + (b"\n" if index is not None or _printable(text) else b""))
        sys.stdout.buffer.flush()
    return bool(item.status < 400)


def _printable(text: bytes) -> bool:
    try:
        return all(char.isprintable() or char.isspace() for char in text.decode())
    except UnicodeDecodeError:
        return False


def timings(runs: Sequence[Mapping[str, float]], size: int) -> str:
    """One line: the phases of the only batch, or of the first and the median of the others, in milliseconds."""

    def line(phases: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {seconds * 1000:.2f}" for name, seconds in phases.items())

    batch = f"batch of {size}" if size > 1 else "one request"
    first = f"{batch}, ms: {line(runs[0])}"
    if len(runs) == 1:
        return first
    later = {name: statistics.median(phases[name] for phases in runs[1:]) for name in runs[0]}
    return f"first {first}\nmedian of the other {len(runs) - 1}: {line(later)}"
