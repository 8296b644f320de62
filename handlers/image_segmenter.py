"""``image_segmenter``: an image in, the class of each of its pixels out, as ``[crop, crop, 2]``: (class, probability).

All classes of all pixels would be tens of megabytes of JSON per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlserve.handler import PredictionError

from .timing import timed
from .vision import VisionHandler


class ImageSegmenter(VisionHandler):
    """For models as torchvision's, that return ``{"out": [n, classes, height, width]}``, or that tensor itself."""

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """The most probable class of each pixel and its probability."""
        import torch

        logits = data["out"] if isinstance(data, Mapping) else data
        best = logits.float().softmax(dim=1).max(dim=1)
        return list(torch.stack([best.indices.to(best.values.dtype), best.values], dim=3).tolist())

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any = 0) -> list[Any]:
        """Refuse with 501: captum explains the scores of classes."""
        raise PredictionError(
            501, "This model has no explanations: it answers a class of each pixel, not scores of classes"
        )
