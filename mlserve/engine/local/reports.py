"""What the log says of a worker's death and its next try: in mlserve's words, or line by line as TorchServe does.

TorchServe's lines are read by scripts, so they keep their texts, spelling included. The reason in mlserve's words is
beside them, except for a model that does not load: its traceback is in the log already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from mlserve.core.lifecycle import WorkerState
from mlserve.core.model import ModelKey
from mlserve.engine.local.exits import Ending
from mlserve.engine.local.logs import WorkerLog
from mlserve.log import THREAD
from mlserve.wire.payload import Hello

log = logging.getLogger(__name__)
torchserve = logging.getLogger("org.pytorch.serve.wlm.WorkerThread")

_UNANSWERED = ("startup_timeout", "response_timeout")


class WorkerReport(Protocol):
    """Told of the steps of one worker, over all its processes."""

    def started(self, hello: Hello, lines: WorkerLog) -> None:
        """The process runs. ``lines`` is where its output goes."""

    def loaded(self) -> None:
        """It has loaded the model."""

    def died(self, ending: Ending, state: WorkerState) -> None:
        """Its process has ended in ``state``, and nobody had asked it to."""

    def retry(self, ending: Ending, delay: float) -> None:
        """It will be started again in ``delay`` seconds."""


MakeReport = Callable[[ModelKey, int], WorkerReport]


class PlainReport:
    """See ``WorkerReport``."""

    def __init__(self, key: ModelKey, worker_id: int) -> None:
        self._key = key
        self._worker_id = worker_id

    def started(self, hello: Hello, lines: WorkerLog) -> None:
        """See ``WorkerReport``."""

    def loaded(self) -> None:
        """See ``WorkerReport``."""

    def died(self, ending: Ending, state: WorkerState) -> None:
        """See ``WorkerReport``."""

    def retry(self, ending: Ending, delay: float) -> None:
        """See ``WorkerReport``."""
        log.warning("worker %d of model %s %s; next try in %g s", self._worker_id, self._key, ending.text, delay)


class TorchServeReport:
    """See ``WorkerReport``."""

    def __init__(self, key: ModelKey, worker_id: int) -> None:
        self._key = key
        self._worker_id = worker_id
        self._extra = {THREAD: f"W-{worker_id}-{key.name}_{key.version}"}
        self._unanswered = 0
        self._recovering_since = 0  # ms since the epoch; 0 = it is well

    def started(self, hello: Hello, lines: WorkerLog) -> None:
        """See ``WorkerReport``. These are lines of a TorchServe worker's own output."""
        for text in (f"[PID]{hello.pid}", "Torch worker started.", f"Python runtime: {hello.python}"):
            lines.line(logging.INFO, text)

    def loaded(self) -> None:
        """See ``WorkerReport``."""
        self._unanswered = 0
        if self._recovering_since:
            self._recovering_since = 0
            torchserve.info("Auto recovery succeeded, reset recoveryStartTS", extra=self._extra)

    def died(self, ending: Ending, state: WorkerState) -> None:
        """See ``WorkerReport``."""
        if ending.slug in _UNANSWERED:
            self._unanswered += 1
            torchserve.error("Number or consecutive unsuccessful inference %d", self._unanswered, extra=self._extra)
            torchserve.error(  # one record: the second line must be the next one
                "Backend worker error\norg.pytorch.serve.wlm.WorkerInitializationException: "
                "Backend worker did not respond in given time",
                extra=self._extra,
            )
        name = "WORKER_MODEL_LOADED" if state is WorkerState.READY else "WORKER_STARTED"
        torchserve.info("%d Worker disconnected. %s", self._worker_id, name, extra=self._extra)
        if ending.slug == "load_failed":
            torchserve.warning("Load model failed: %s, error: Worker died.", self._key.name, extra=self._extra)
        else:
            log.warning("worker %d of model %s %s", self._worker_id, self._key, ending.text, extra=self._extra)
        if self._recovering_since:
            torchserve.warning("Auto recovery failed again", extra=self._extra)
        else:
            self._recovering_since = int(time.time() * 1000)
            torchserve.info("Auto recovery start timestamp: %d", self._recovering_since, extra=self._extra)

    def retry(self, ending: Ending, delay: float) -> None:
        """See ``WorkerReport``."""
        torchserve.info("Retry worker: %d in %g seconds.", self._worker_id, delay, extra=self._extra)


def report_for(log_format: str) -> MakeReport:
    """The reports that go with the setting ``log.format``."""
    return TorchServeReport if log_format == "torchserve" else PlainReport
