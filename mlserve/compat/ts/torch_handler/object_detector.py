"""``ts.torch_handler.object_detector``."""

from mlserve.compat.ts.torch_handler.vision_handler import VisionHandler as _Parent
from mlserve.handlers import object_detector

__all__ = ["ObjectDetector"]


class ObjectDetector(_Parent, object_detector.ObjectDetector):
    """``mlserve.handlers.object_detector.ObjectDetector`` on TorchServe's base class."""
