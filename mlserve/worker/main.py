"""The worker process from start to exit code: arguments, link, HELLO, LOAD, READY or FAILED, then batches.

::

    python -m mlserve.worker --fd N [--arena-fd M --arena-size BYTES] [--reply-arena-fd K --reply-arena-size BYTES]

N is one end of a ``socket.socketpair()``; M and K are memfds made by ``wire.arena.Arena.create`` in the server:
requests lie in the first (the server allocates), answers in the second (this process allocates).

Exit codes: 0 asked or server gone, 3 handler failed to load, 4 protocol error, 5 device lost; a handler that calls
``sys.exit`` while handling chooses its own.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from time import monotonic

import msgspec

from mlserve.errors import ErrorKind
from mlserve.wire.arena import Arena
from mlserve.wire.frames import VERSION, Frame, Kind
from mlserve.wire.payload import EXIT_LOAD_FAILED, EXIT_PROTOCOL_ERROR, Hello, Load, LoadFailed, Ready, Warm
from mlserve.worker import failures, logs
from mlserve.worker.context import make_context
from mlserve.worker.coroutines import Coroutines
from mlserve.worker.link import Link
from mlserve.worker.loader import LoadError, load
from mlserve.worker.loop import Reader, Stop, run
from mlserve.worker.metrics import take_metrics
from mlserve.worker.replies import Replies
from mlserve.worker.rows import RowDecoder
from mlserve.worker.runner import Runner, preprocess_threads

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_WHILE_LOADING = (100_000, 50, 100)  # for gc: with (700, 10, 10) collections are 6 % of the time of `import torch`


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mlserve.worker", description=__doc__)
    parser.add_argument("--fd", type=int, default=-1)
    parser.add_argument("--connect", default="", help="path of a socket, instead of --fd; see worker.group")
    parser.add_argument("--arena-fd", type=int, default=-1)
    parser.add_argument("--arena-size", type=int, default=0)
    parser.add_argument("--reply-arena-fd", type=int, default=-1)
    parser.add_argument("--reply-arena-size", type=int, default=0)
    return parser.parse_args(arguments)


def _process_setup() -> None:
    """Signals, standard streams and crash dumps as a child of the server should have them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()


def _end_with_parent() -> None:
    """Have the kernel end this process when the launcher ends, on Linux.

    The socket says so too, but not to a handler that holds the interpreter lock; and torchrun puts every rank into a
    session of its own, so that ending the launcher's process group does not reach it.
    """
    if sys.platform == "linux":
        import ctypes  # 2 ms that other workers do not pay

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _socket(options: argparse.Namespace) -> socket.socket:
    if options.connect:
        _end_with_parent()
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(options.connect)
        return sock
    os.set_inheritable(options.fd, False)
    return socket.socket(fileno=options.fd)


def _attach(fd: int, size: int, owner: bool = False) -> Arena | None:
    if fd < 0:
        return None
    os.set_inheritable(fd, False)
    return Arena.attach(fd, size, owner=owner)


def _load(frame: Frame, link: Link, arena: Arena | None) -> Runner:
    """Load the model that a LOAD frame names and report it. Raises :class:`Stop` with code 3 when that fails."""
    begun = monotonic()
    request = msgspec.msgpack.decode(frame.meta, type=Load)
    if request.environment:
        from mlserve.worker.warm import adopt

        adopt(request.environment)
    environment = dict(os.environ)
    thresholds = gc.get_threshold()
    gc.set_threshold(*_WHILE_LOADING)
    context = None
    try:
        if request.model_dir:
            os.chdir(request.model_dir)
            # For processes that a handler starts; this one has it on sys.path already.
            path = [request.model_dir, os.environ.get("PYTHONPATH", "")]
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        context = make_context(request)
        coroutines = Coroutines()
        if request.async_communication:
            coroutines.start()  # a handler may ask for the loop, or make tasks on it, while it loads
        from mlserve.compat.finder import install  # handler files of TorchServe import ts.*

        install()
        entry = load(request.handler, request.model_dir, context, coroutines, request.service_envelope)
        if request.handler_threads > 1:
            from mlserve.worker.crew import check_threads

            check_threads(request.handler_threads, entry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a start that always fails must not be tried for ever
        kind = ErrorKind.OUT_OF_MEMORY if failures.is_out_of_memory(error) else ErrorKind.HANDLER_FAILED
        message = str(error) if isinstance(error, LoadError) else failures.describe(error)
        trace = failures.format_traceback(error)
        metrics = take_metrics(context) if context is not None else []
        link.send_meta(Kind.FAILED, 0, LoadFailed(kind.value, message, trace, metrics))
        raise Stop(EXIT_LOAD_FAILED, f"model {request.model_name} failed to load:\n{trace}") from None
    ready = Ready(monotonic() - begun, entry.name, take_metrics(context), entry.signature)
    if request.report_modules:
        from mlserve.worker.warm import heavy_modules

        ready.modules = heavy_modules(environment)
    link.send_meta(Kind.READY, 0, ready)
    if gc.get_threshold() == _WHILE_LOADING:  # else the handler has its own idea
        gc.set_threshold(*thresholds)
    rows = RowDecoder(request, arena, entry.accepts_views)
    return Runner(entry, context, request, rows, link, coroutines)


def _greet(link: Link) -> None:
    """Say HELLO, which is to be the first frame: before the reader can answer a PING."""
    version = ".".join(map(str, sys.version_info[:3]))
    link.send_meta(Kind.HELLO, 0, Hello(os.getpid(), version, VERSION, int(os.environ.get("LOCAL_RANK", "0"))))


def _serve(reader: Reader, link: Link, arena: Arena | None, replies: Replies) -> None:
    first = reader.inbox.get()
    if isinstance(first, Stop):
        raise first
    if not isinstance(first, Frame):
        raise Stop(EXIT_PROTOCOL_ERROR, "a batch before LOAD")
    try:
        if first.kind == Kind.WARM:
            from mlserve.worker.warm import warm

            request = msgspec.msgpack.decode(first.meta, type=Warm)
            link.send_meta(Kind.WARMED, 0, warm(request.modules, request.environment))
            return _serve(reader, link, arena, replies)
        runner = _load(first, link, arena)
    except msgspec.MsgspecError as error:
        raise Stop(EXIT_PROTOCOL_ERROR, f"LOAD: {error}") from error
    _answer(reader, runner, link, replies)


def _answer(reader: Reader, runner: Runner, link: Link, replies: Replies) -> None:
    """Work as the model wants it: batch by batch, in steps, side by side, in threads, or one batch ahead."""
    if runner.load.continuous_batching:
        from mlserve.worker.steps import run_steps

        run_steps(reader, runner, replies)
    elif runner.load.async_communication:
        from mlserve.worker.tasks import serve

        runner.run(serve(reader, runner, replies))
    elif runner.load.handler_threads > 1:
        from mlserve.worker.crew import run_crew

        run_crew(reader, runner, link, replies, runner.load.handler_threads)
    elif threads := preprocess_threads(runner):
        from mlserve.worker.ahead import run_ahead

        run_ahead(reader, runner, replies, threads)
    else:
        run(reader, runner, link, replies)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker; returns its exit code."""
    options = _arguments(arguments)
    _process_setup()
    link = Link(_socket(options))
    logs.install(link)
    arena = _attach(options.arena_fd, options.arena_size)
    replies = Replies(_attach(options.reply_arena_fd, options.reply_arena_size, owner=True))
    reader = Reader(link, replies)
    with contextlib.suppress(OSError):  # the server is gone; the reader finds that out as well
        _greet(link)
    reader.start()
    try:
        _serve(reader, link, arena, replies)
    except Stop as stop:
        if stop.reason:
            print(stop.reason, file=sys.stderr)
        return stop.code
    except OSError:
        if not reader.gone:
            raise
    finally:
        reader.finish()
    return 0
