"""``ts.handler_utils.timer``: the decorator ``timed``."""

from mlserve.handlers.timing import timed

__all__ = ["timed"]
