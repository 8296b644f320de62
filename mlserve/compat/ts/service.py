"""``ts.service``: what handlers take from it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from mlserve.compat.ts.utils.util import PredictionException

__all__ = ["PREDICTION_METRIC", "PredictionException", "emit_metrics"]

PREDICTION_METRIC = "PredictionTime"

logger = logging.getLogger(__name__)


def emit_metrics(metrics: Iterable[Any]) -> None:
    """Write metrics to the log, a line each, in the form that log readers know them by."""
    for metric in metrics or ():
        logger.info("[METRICS]%s", metric)
