"""``ts.torch_handler.dali_image_classifier``."""

from mlserve.handlers.dali_image_classifier import DALIImageClassifier

__all__ = ["DALIImageClassifier"]
