"""``dali_image_classifier``: as ``image_classifier``, with NVIDIA DALI decoding and resizing on the GPU.

The archive holds a serialized DALI pipeline, a file ``*.dali`` whose external source is called ``source``. In
model-config.yaml ``dali: {batch_size, num_threads, device_id, pipeline_file}`` overrides what it was saved with.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlserve.handler import Context, PredictionError

from .image_classifier import ImageClassifier
from .optional import required
from .timing import timed
from .vision import VisionHandler


class DALIPreprocessing(VisionHandler):
    """Sends the undecoded images of a batch through the pipeline, whose first output is the model's input."""

    pipeline: Any = None
    _running = threading.Lock()  # what a run gives holds until the next one

    def initialize(self, context: Context) -> None:
        """Load the pipeline and the model."""
        pipelines = required("nvidia.dali.pipeline", "dali_image_classifier", "nvidia-dali-cuda120")
        super().initialize(context)
        options = context.model_yaml_config.get("dali")
        options = options if isinstance(options, Mapping) else {}
        path = dali_file(Path(context.system_properties["model_dir"]), options.get("pipeline_file", ""))
        keys = {"batch_size": "batch_size", "num_threads": "num_threads", "device_id": "device_id"}
        chosen = {key: int(options[name]) for key, name in keys.items() if name in options}
        chosen.setdefault("batch_size", int(context.system_properties["batch_size"]))
        self.pipeline = pipelines.Pipeline.deserialize(filename=str(path), **chosen)

    @timed
    def preprocess(self, data: list[Any]) -> Any:
        """``[n, 3, height, width]`` on the model's device; a row that is no file is refused."""
        import numpy as np
        import torch

        images = []
        for index, row in enumerate(data):
            value = row.get("data") or row.get("body")
            if isinstance(value, (bytes, bytearray, memoryview)) and len(value):
                images.append(np.frombuffer(value, dtype=np.uint8))
            else:
                self.refuse(index, PredictionError(400, "Expected an image file as the body or as the part 'data'"))
        if not images:
            return None
        with self._running:
            output = self.pipeline.run(source=images)[0]
            output = output.as_cpu() if hasattr(output, "as_cpu") else output
            tensors = [torch.as_tensor(np.asarray(output.at(index))) for index in range(len(images))]
            return torch.stack(tensors).to(self.device)


class DALIImageClassifier(DALIPreprocessing, ImageClassifier):
    """The classes of images that the pipeline has prepared."""


def dali_file(folder: Path, name: str) -> Path:
    """The pipeline of an archive. Raises ``ValueError`` if there is none, or more than one and no name."""
    found = [folder / name] if name else sorted(folder.glob("*.dali"))
    if len(found) != 1 or not found[0].is_file():
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"Expected one DALI pipeline (*.dali) in the archive, found {names}: add it with --extra-files"
        )
    return found[0]
