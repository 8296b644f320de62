"""Python logging of a handler, relayed to the server as LOG frames.

A handler logs as in any program; the level comes from ``MLSERVE_WORKER_LOG_LEVEL`` (a name or a number, default INFO).
What is printed instead goes to the worker's stdout and stderr, which the server reads line by line.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback

from mlserve.wire.frames import Kind
from mlserve.wire.payload import LogRecordMeta
from mlserve.worker.link import Link

LEVEL_VARIABLE = "MLSERVE_WORKER_LOG_LEVEL"


class LinkHandler(logging.Handler):
    """Sends records up the link; writes to stderr once the link is gone, and in processes that a handler forked."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._exceptions = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. Never raises: a log line must not fail a request."""
        try:
            message = record.getMessage()
            if record.exc_info and record.exc_info[0] is not None:
                message += "\n" + self._exceptions.formatException(record.exc_info)
            meta = LogRecordMeta(record.levelno, record.name, message, record.created)
            try:
                self._link.send_meta(Kind.LOG, 0, meta)
            except OSError:
                print(f"{record.levelname} {record.name}: {message}", file=sys.stderr)
        except Exception:
            traceback.print_exc(file=sys.stderr)


def install(link: Link) -> None:
    """Make ``link`` the destination of the root logger."""
    text = os.environ.get(LEVEL_VARIABLE, "") or "INFO"
    root = logging.getLogger()
    root.handlers = [LinkHandler(link)]
    try:
        root.setLevel(int(text) if text.isdecimal() else text.upper())
    except ValueError:
        root.setLevel(logging.INFO)
        root.warning("%s=%r is not a logging level; using INFO", LEVEL_VARIABLE, text)
