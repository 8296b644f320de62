"""What the server writes about itself: its log, the access log, and TorchServe's log files where asked for.

``log.format`` is the form of the console: ``text`` and ``json`` go to standard error, ``torchserve`` to standard
output, where TorchServe's users look. ``log.directory`` adds TorchServe's files, in TorchServe's form.
"""

from __future__ import annotations

import atexit
import logging
import sys
from typing import IO, TYPE_CHECKING

from mlserve.log.access import AccessLog, PhaseTimings
from mlserve.log.formats import THREAD, JsonFormatter, TextFormatter
from mlserve.log.torchserve import TorchServeHandler, TorchServeLogs
from mlserve.log.torchserve_access import TorchServeAccessLog
from mlserve.settings import LogSettings

__all__ = [
    "LOGGERS",
    "THREAD",
    "AccessLog",
    "PhaseTimings",
    "TorchServeLogs",
    "close_logs",
    "open_access_log",
    "open_logs",
    "setup_logging",
]

LOGGERS = ("mlserve", "aiohttp", "asyncio", "grpc", "org.pytorch.serve")

if TYPE_CHECKING:
    _Handler = logging.StreamHandler[IO[str]]
else:
    _Handler = logging.StreamHandler  # not subscriptable before Python 3.11


class _StderrHandler(_Handler):
    """Looks up ``sys.stderr`` at each line, so that a live view that borrows it prints log lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]  # the base class has a plain attribute
        return sys.stderr


_logs: TorchServeLogs | None = None


def setup_logging(settings: LogSettings | None = None) -> logging.Logger:
    """Send the log of mlserve and the libraries under it where ``settings`` say; return the ``mlserve`` logger.

    ``settings.level`` applies to mlserve; libraries are heard from warning on. May be called again: the earlier set-up
    is replaced.
    """
    global _logs
    settings = settings or LogSettings()
    close_logs()
    handlers: list[logging.Handler] = []
    in_torchserve_form = settings.format == "torchserve"
    if in_torchserve_form or settings.directory:
        _logs = TorchServeLogs(settings.directory, settings.metrics_directory, console=in_torchserve_form)
        handlers.append(TorchServeHandler(_logs, telemetry=bool(settings.telemetry)))
    if not in_torchserve_form:
        plain = _StderrHandler()
        plain.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
        handlers.append(plain)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in [item for item in logger.handlers if isinstance(item, (_StderrHandler, TorchServeHandler))]:
            logger.removeHandler(old)
        for handler in handlers:
            logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    level = settings.level.upper()
    logging.getLogger("org.pytorch.serve").setLevel(level)  # lines that tools look for under TorchServe's names
    own = logging.getLogger("mlserve")
    own.setLevel(level)
    if _logs is not None:
        _logs.report()
    return own


def open_logs() -> TorchServeLogs | None:
    """TorchServe's files and console of the last :func:`setup_logging`; None where the settings ask for neither."""
    return _logs


def open_access_log(settings: LogSettings) -> AccessLog:
    """The access log that ``settings`` ask for. Raises OSError for a file that cannot be opened.

    In TorchServe's form ``-`` is its console, of which the line is part already.
    """
    if _logs is None:
        return AccessLog(settings.access_log, settings.format)
    other = None
    if settings.access_log != "off" and not (settings.access_log == "-" and _logs.console):
        other = AccessLog(settings.access_log, settings.format)
    return TorchServeAccessLog(_logs, other)


def close_logs() -> None:
    """Write what is left to TorchServe's files and console. A second call does nothing."""
    global _logs
    logs, _logs = _logs, None
    if logs is not None:
        logs.close()


atexit.register(close_logs)
