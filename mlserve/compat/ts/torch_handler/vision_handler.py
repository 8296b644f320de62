"""``ts.torch_handler.vision_handler``."""

from mlserve.compat.ts.torch_handler.base_handler import BaseHandler as _Parent
from mlserve.handlers import vision

__all__ = ["VisionHandler"]


class VisionHandler(_Parent, vision.VisionHandler):
    """``mlserve.handlers.vision.VisionHandler`` on TorchServe's base class."""
