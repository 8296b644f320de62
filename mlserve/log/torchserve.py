"""TorchServe's log files and console: which line goes where, and what it looks like there.

A line goes to the file of its kind, and, as TorchServe's log4j2 set-up has it, also to ``ts_log.log`` and the console.
There it has level, thread and logger in front; in the file of its kind only the time. Text is put together once.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from mlserve.log.formats import TorchServeFormatter, is_model_line, local_stamp
from mlserve.log.rolling import RollingFile
from mlserve.log.writer import LineWriter, Output, Stream

log = logging.getLogger(__name__)

FILES = ("access_log", "model_log", "ts_log", "model_metrics", "ts_metrics")
_METRICS = ("model_metrics", "ts_metrics")
_WORKERS = "mlserve.engine."  # what logs a traceback there has failed to run a worker
_VERSION = "0.12.0"  # whose log this is


class TorchServeLogs:
    """The open files of ``directory`` (none if empty) and, with ``console``, standard output.

    Every file is there once this returns. One that cannot be opened is named in a warning, and its lines go to the
    other places only. The console is TorchServe's set-up whole, and with it come the files' permissions: as the umask
    has it, since log shippers often run as another user.
    """

    def __init__(self, directory: str, metrics_directory: str = "", *, console: bool = True) -> None:
        self._mode = 0o666 if console else 0o640
        self.failures: list[str] = []
        self._writers: list[LineWriter] = []
        files: dict[str, Output] = {}
        if directory or metrics_directory:
            writer = self._writer("log-files")
            for name in FILES:
                place = (metrics_directory or directory) if name in _METRICS else directory
                if place and (target := self._open(Path(place) / f"{name}.log")) is not None:
                    files[name] = writer.output(target)
        shared = [files["ts_log"]] if "ts_log" in files else []
        if console:
            shared.append(self._writer("log-console").output(Stream(1, "standard output")))
        self._shared = tuple(shared)
        self._files = files
        self.console = console
        self._millisecond, self._stamp = 0, ""

    def _writer(self, name: str) -> LineWriter:
        made = LineWriter(name)
        self._writers.append(made)
        return made

    def _open(self, path: Path) -> RollingFile | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return RollingFile(path, mode=self._mode)
        except OSError as error:
            self.failures.append(f"{path}: {error.strerror or error}")
            return None

    def report(self) -> None:
        """Warn of the files that could not be opened, once somebody can read it."""
        if self.failures:
            log.warning(
                "log.directory: these files cannot be written, their lines go to the console only: %s",
                "; ".join(self.failures),
            )

    def text(self, line: str, kind: str = "") -> None:
        """A whole line, in log4j2's form already, to the file of ``kind``, ``ts_log.log`` and the console."""
        line += "\n"
        if kind and (own := self._files.get(kind)) is not None:
            own.put(line)
        for output in self._shared:
            output.put(line)

    def bare(self, kind: str, logger: str, text: str) -> None:
        """One line of ``access_log``, ``ts_metrics`` or ``model_metrics``."""
        now = int(time.time() * 1000)
        if now != self._millisecond:
            self._millisecond, self._stamp = now, local_stamp(now)
        stamp = self._stamp
        if (own := self._files.get(kind)) is not None:
            own.put(f"{stamp} - {text}\n")
        if self._shared:
            line = f"{stamp} [INFO ] main {logger} - {text}\n"
            for output in self._shared:
                output.put(line)

    def metric(self, text: str, model: bool = False) -> None:
        """One metric: a handler's (``model``) or the server's."""
        if model:
            self.bare("model_metrics", "MODEL_METRICS", text)
        else:
            self.bare("ts_metrics", "TS_METRICS", text)

    def flush_metrics(self) -> None:
        """Have what handlers reported in its file now: who has an answer may look for what its request caused."""
        if (own := self._files.get("model_metrics")) is not None:
            own.flush_if_quick()

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers:
            writer.close()


class TorchServeHandler(logging.Handler):
    """Hands records to :class:`TorchServeLogs`.

    With ``telemetry`` a failure of the server itself with a worker is also counted in a line that Amazon SageMaker
    looks for. A handler that fails and a worker that dies are none.
    """

    def __init__(self, logs: TorchServeLogs, *, telemetry: bool = False) -> None:
        super().__init__()
        self._logs = logs
        self._telemetry = telemetry
        self.setFormatter(TorchServeFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        try:
            self._logs.text(self.format(record), "model_log" if is_model_line(record) else "")
            if self._telemetry and record.exc_info and record.name.startswith(_WORKERS):
                kind = record.exc_info[0] or Exception
                name = f"{kind.__module__}.{kind.__qualname__}"
                self._logs.bare("", "TELEMETRY_METRICS", f"ModelServerError.Count:1|#TorchServe:{_VERSION},{name}:-1")
        except Exception:
            self.handleError(record)
