"""How a log record looks: mlserve's text and JSON, and TorchServe's log4j2 pattern."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

WORKER_LOGGER = "mlserve.worker"  # records of it that have `worker` are lines of a model's worker
THREAD = "ts_thread"  # attribute of a record (``extra=``): the thread that TorchServe would have logged it from

# log4j2 pads level names to five characters.
_LEVELS = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO ",
    logging.WARNING: "WARN ",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "FATAL",
}


class TextFormatter(logging.Formatter):
    """``2026-11-21T08:03:23.004Z [INFO] mlserve.server: message``, with the traceback on the lines below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)s] %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """UTC in ISO 8601 with milliseconds."""
        return iso(int(record.created * 1000))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, exception, and whatever ``extra=`` brought."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": iso(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TorchServeFormatter(logging.Formatter):
    """``2026-11-21T08:03:23,004 [INFO ] main mlserve.server - message``: log4j2's ``%d{ISO8601} [%-5p] %t %c - %m``.

    A line of a worker is shown as TorchServe shows it: logger ``MODEL_LOG``, a thread named after worker, model and
    stream, and the line alone as its message.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record, and its traceback on the lines below."""
        stamp = local_stamp(int(record.created * 1000))
        level = _LEVELS.get(record.levelno, record.levelname)
        if is_model_line(record):
            text = record.args[2] if isinstance(record.args, tuple) and len(record.args) == 3 else record.getMessage()
            return f"{stamp} [{level}] {model_thread(record)} MODEL_LOG - {text}"
        thread = getattr(record, THREAD, "") or ("main" if record.threadName == "MainThread" else record.threadName)
        line = f"{stamp} [{level}] {thread} {record.name} - {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def is_model_line(record: logging.LogRecord) -> bool:
    """Whether the record is something that a model's worker printed or logged."""
    return record.name == WORKER_LOGGER and hasattr(record, "worker")


def model_thread(record: logging.LogRecord) -> str:
    """``W-9000-m_1.0-stdout``."""
    model = str(getattr(record, "model", "")).replace(":", "_", 1)
    return f"W-{getattr(record, 'worker', 0)}-{model}-{getattr(record, 'stream', 'stdout')}"


def iso(millisecond: int) -> str:
    """Milliseconds since the epoch as UTC in ISO 8601."""
    second, rest = divmod(millisecond, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{rest:03d}Z"


_second, _second_text = -1, ""


def local_stamp(millisecond: int) -> str:
    """Milliseconds since the epoch in local time, as log4j2's ISO8601: a comma before the milliseconds, no zone."""
    global _second, _second_text
    second, rest = divmod(millisecond, 1000)
    if second != _second:  # strftime takes 2 us, and most lines share their second
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
        _second = second
    return f"{_second_text},{rest:03d}"
