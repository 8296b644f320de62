"""``ts.torch_handler.text_handler``."""

from mlserve.compat.ts.torch_handler.base_handler import BaseHandler as _Parent
from mlserve.handlers import text_handler

__all__ = ["TextHandler"]


class TextHandler(_Parent, text_handler.TextHandler):
    """``mlserve.handlers.text_handler.TextHandler`` on TorchServe's base class."""
