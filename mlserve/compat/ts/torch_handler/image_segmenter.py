"""``ts.torch_handler.image_segmenter``."""

from mlserve.compat.ts.torch_handler.vision_handler import VisionHandler as _Parent
from mlserve.handlers import image_segmenter

__all__ = ["ImageSegmenter"]


class ImageSegmenter(_Parent, image_segmenter.ImageSegmenter):
    """``mlserve.handlers.image_segmenter.ImageSegmenter`` on TorchServe's base class."""
