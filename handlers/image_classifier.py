"""``image_classifier``: an image in, the most probable classes out, as ``{label: probability}``."""

from __future__ import annotations

from typing import Any

from mlserve.handler import Context

from .labels import named
from .scores import limited, score_range
from .vision import VisionHandler


class ImageClassifier(VisionHandler):
    """For models that return logits ``[n, classes]``. ``topk`` is how many classes an answer holds, of those whose
    probability is from ``min_score`` to ``max_score``.

    Set them in a subclass, or as ``handler: {topk: 3}`` in model-config.yaml. Labels come from ``index_to_name.json``.
    """

    topk = 5
    min_score = 0.0
    max_score = 1.0

    def initialize(self, context: Context) -> None:
        """Load the model and read the options."""
        options = (context.model_yaml_config or {}).get("handler")
        if isinstance(options, dict) and "topk" in options:
            self.set_max_result_classes(options["topk"])
        self.min_score, self.max_score = score_range(context.model_yaml_config, self.min_score, self.max_score)
        super().initialize(context)

    def set_max_result_classes(self, topk: int) -> None:
        """Set how many classes an answer holds."""
        if not isinstance(topk, int) or isinstance(topk, bool) or topk < 1:
            raise ValueError(f"handler.topk in model-config.yaml must be a whole number from 1, got {topk!r}")
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """How many classes an answer holds."""
        return self.topk

    def postprocess(self, data: Any) -> list[Any]:
        """Softmax ``[n, classes]`` and name the best ``topk`` of each row, most probable first."""
        probabilities = data.float().softmax(dim=1)
        allowed = probabilities
        if self.max_score < 1:
            allowed = probabilities.masked_fill(probabilities > self.max_score, -1)
        best = allowed.topk(min(self.topk, probabilities.shape[1]), dim=1)
        rows = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        if limited(self.min_score, self.max_score):
            kept = [sum(value >= self.min_score for value in values) for _, values in rows]  # they are in order
            rows = [(indices[:count], values[:count]) for (indices, values), count in zip(rows, kept, strict=True)]
        return [named(indices, values, self.mapping) for indices, values in rows]
