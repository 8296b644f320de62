"""``ts.torch_handler.dali_handler``."""

from mlserve.compat.ts.torch_handler.vision_handler import VisionHandler as _Parent
from mlserve.handlers import dali_image_classifier

__all__ = ["DALIHandler"]


class DALIHandler(dali_image_classifier.DALIPreprocessing, _Parent):
    """``mlserve.handlers.dali_image_classifier.DALIPreprocessing`` before any model, on TorchServe's base class."""
