"""``ts.torch_handler.text_classifier``."""

from mlserve.compat.ts.torch_handler.text_handler import TextHandler as _Parent
from mlserve.handlers import text_classifier

__all__ = ["TextClassifier"]


class TextClassifier(_Parent, text_classifier.TextClassifier):
    """``mlserve.handlers.text_classifier.TextClassifier`` on TorchServe's base class."""
