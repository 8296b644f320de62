"""``object_detector``: an image in, what is in it out, as a list of ``{label: [x1, y1, x2, y2], "score": s}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlserve.handler import Context, PredictionError

from .imagefiles import rgb
from .labels import name_of
from .scores import score, score_range
from .timing import timed
from .vision import VisionHandler

if TYPE_CHECKING:
    import torch


def to_tensor(image: Any) -> torch.Tensor:
    """A ``PIL.Image`` of any size to RGB ``[3, height, width]`` of ``float32`` from 0 to 1."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.array(rgb(image)))
    return pixels.permute(2, 0, 1).to(torch.float32).div_(255)


class ObjectDetector(VisionHandler):
    """For models as torchvision's: a list of images in, ``{boxes, labels, scores}`` for each out.

    ``threshold`` is the least score that is answered and ``max_score`` the greatest; set them in a subclass, or as
    ``handler: {threshold: 0.8}`` in model-config.yaml, where ``min_score`` is another name of ``threshold``. Boxes are
    in pixels of the image as it was sent.
    """

    image_processing: Callable[[Any], torch.Tensor] = staticmethod(to_tensor)
    threshold = 0.5
    max_score = 1.0

    def initialize(self, context: Context) -> None:
        """Load the model and read the options."""
        options = (context.model_yaml_config or {}).get("handler")
        options = options if isinstance(options, Mapping) else {}
        if "threshold" in options and "min_score" in options:
            raise ValueError("handler.threshold and handler.min_score in model-config.yaml are the same: give one")
        threshold = score(options, "threshold", self.threshold)
        self.threshold, self.max_score = score_range(context.model_yaml_config, threshold, self.max_score)
        super().initialize(context)

    def _tensor(self, value: list[Any]) -> torch.Tensor:
        tensor = super()._tensor(value)
        if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.numel():
            raise PredictionError(400, f"Expected a tensor of shape [3, height, width], got {list(tensor.shape)}")
        return tensor

    def _together(self, items: list[torch.Tensor]) -> Any:
        """One tensor if all images have one size, else a list: detection models take both."""
        import torch

        if len({item.shape for item in items}) == 1:
            return torch.stack(items).to(self.device)
        return [item.to(self.device) for item in items]

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the model on a tensor or on a list of images."""
        import torch

        if not isinstance(data, list):
            return super().inference(data, *args, **kwargs)
        with torch.inference_mode():
            return self.model(data, *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """What scores from ``threshold`` to ``max_score`` on each image, in the model's order."""
        answers = []
        for found in data:
            kept = found["scores"] >= self.threshold
            if self.max_score < 1:
                kept &= found["scores"] <= self.max_score
            boxes, labels, scores = (found[key][kept].tolist() for key in ("boxes", "labels", "scores"))
            answers.append(
                [
                    {name_of(label, self.mapping): box, "score": score}
                    for box, label, score in zip(boxes, labels, scores, strict=True)
                ]
            )
        return answers

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any = 0) -> list[Any]:
        """Refuse with 501: captum explains the scores of classes."""
        raise PredictionError(501, "This model has no explanations: it answers boxes, not scores of classes")
