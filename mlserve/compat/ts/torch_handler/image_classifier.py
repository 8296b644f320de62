"""``ts.torch_handler.image_classifier``."""

from mlserve.compat.ts.torch_handler.vision_handler import VisionHandler as _Parent
from mlserve.handlers import image_classifier

__all__ = ["ImageClassifier"]


class ImageClassifier(_Parent, image_classifier.ImageClassifier):
    """``mlserve.handlers.image_classifier.ImageClassifier`` on TorchServe's base class."""
