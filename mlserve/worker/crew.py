"""Several batches at once in one worker, each in a thread of its own: ``handlerThreads``.

What a handler computes in native code leaves the interpreter's lock to others, so on a CPU two batches of two threads
beat one batch that is cut into two at each operator, and decoding goes on beside computing. Measured on two cores,
EfficientNet-Lite0 in TorchScript: 26 images a second in batches of 8 by two threads of torch, 36 in two such batches at
once by one thread each, 64 in two of 1 or 2; MiniLM on sorted texts: 56 texts a second, and 112.

Each thread has a context, a shallow copy of the handler and an event loop of its own: what a handler keeps on ``self``
of a batch stays with that batch, what it loaded is there once. The worker's share of the cores is divided among them.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
import threading
from queue import SimpleQueue
from time import monotonic

from mlserve.wire.payload import EXIT_DEVICE_LOST, EXIT_PROTOCOL_ERROR
from mlserve.worker.contexts import let_metrics_follow, own_context
from mlserve.worker.coroutines import Coroutines
from mlserve.worker.link import Link
from mlserve.worker.loader import Entry, LoadError
from mlserve.worker.loop import ASKED, EOF_GRACE, Reader, Stop, answer
from mlserve.worker.metrics import Metrics
from mlserve.worker.replies import Replies
from mlserve.worker.runner import Runner, Work

log = logging.getLogger("mlserve.worker")


def check_threads(threads: int, entry: Entry) -> None:
    """Raise :class:`LoadError` for a handler that several threads cannot call."""
    if inspect.iscoroutinefunction(entry.call):
        raise LoadError(
            f"handlerThreads is {threads}, but {entry.name} is a coroutine function, whose loop is that of one thread: "
            "set asyncCommunication: true instead, and its requests run side by side"
        )


class Crew:
    """The threads. ``over`` gets what ended each of them: a :class:`Stop`, or what the handler raised to end the
    process."""

    def __init__(self, reader: Reader, runner: Runner, link: Link, replies: Replies, threads: int) -> None:
        self.over: SimpleQueue[BaseException] = SimpleQueue()
        self._reader = reader
        self._runner = runner
        self._link = link
        self._replies = replies
        self._cores = int(os.environ.get("OMP_NUM_THREADS") or 1)  # of each thread
        self._of_torch = _settings_of_torch()
        self.threads = [
            threading.Thread(target=self._run, name=f"mlserve-handler-{number}", daemon=True)
            for number in range(threads)
        ]

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._reader.inbox.put(error if isinstance(error, Stop) else Stop(ASKED))  # the others end as well
            self.over.put(error)

    def _work(self) -> None:
        """Answer batches until :class:`Stop` is raised."""
        own = self._runner.apart(own_context(self._runner.context))
        own.entry = own.entry.for_thread(own.context)
        own.run = Coroutines()
        if isinstance(own.context.metrics, Metrics):
            own.context.metrics.keep_apart()
        self._share_cores()
        take = self._reader.inbox.get
        while True:
            work = take()
            if isinstance(work, Stop):
                raise work
            if not isinstance(work, Work):
                raise Stop(EXIT_PROTOCOL_ERROR, "a second LOAD")
            if self._reader.gone:
                continue  # nobody is left to read the answer
            answer(work, own, self._link, self._replies)
            self._reader.done(work)
            del work  # or its body would be held until the next batch comes
            if own.fatal:
                raise Stop(EXIT_DEVICE_LOST, own.fatal)

    def _share_cores(self) -> None:
        """Torch keeps a number for each thread. A handler that set it to all cores had the worker in mind. What else it
        set of the kind in the main thread is the threads' as well."""
        torch = sys.modules.get("torch")
        if torch is None:
            return
        if torch.get_num_threads() > self._cores:
            torch.set_num_threads(self._cores)
        grad, device = self._of_torch
        torch.set_grad_enabled(grad)
        if device is not None:
            torch.cuda.set_device(device)


def _settings_of_torch() -> tuple[bool, int | None]:
    """(whether torch records gradients, the current GPU) of this thread, where a handler's initialize() set them."""
    torch = sys.modules.get("torch")
    if torch is None:
        return True, None
    return torch.is_grad_enabled(), torch.cuda.current_device() if torch.cuda.is_initialized() else None


def run_crew(reader: Reader, runner: Runner, link: Link, replies: Replies, threads: int) -> None:
    """Answer up to ``threads`` batches at once, until :class:`Stop` or what the handler ends the process by is raised.

    The others are waited for, because the process cannot end cleanly under a thread that computes in native code.
    """
    let_metrics_follow(runner.context)
    crew = Crew(reader, runner, link, replies, threads)
    for thread in crew.threads:
        thread.start()
    first = crew.over.get()
    asked = isinstance(first, Stop) and first.code == ASKED
    until = monotonic() + EOF_GRACE
    for thread in crew.threads:
        thread.join(None if asked else max(0.0, until - monotonic()))
    if any(thread.is_alive() for thread in crew.threads):
        _leave(first)
    raise first


def _leave(error: BaseException) -> None:
    """End the process under a thread that still computes."""
    code = error.code if isinstance(error, (Stop, SystemExit)) else 1
    with contextlib.suppress(OSError, ValueError):
        print(error, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)
