"""``ts.torch_handler.unit_tests.test_utils.mock_context``: a context for tests of a handler class without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlserve.compat.ts.utils.util import get_yaml_config
from mlserve.worker.metrics import Metrics

__all__ = ["MockContext"]


class MockContext:
    """Names the files of a model; knows nothing of requests."""

    def __init__(
        self,
        model_pt_file: str | None = "model.pt",
        model_dir: str = "ts/torch_handler/unit_tests/models/tmp",
        model_file: str | None = "model.py",
        gpu_id: str | None = "0",
        model_name: str = "mnist",
        model_yaml_config_file: str | None = None,
    ) -> None:
        import torch

        model = {"serializedFile": model_pt_file, "modelFile": model_file}
        self.manifest: dict[str, Any] = {"model": {key: file for key, file in model.items() if file}}
        self.system_properties: dict[str, Any] = {"model_dir": model_dir}
        if torch.cuda.is_available() and gpu_id:
            self.system_properties["gpu_id"] = gpu_id
        self.model_name = model_name
        self.explain = False
        self.metrics: Any = Metrics()
        self.model_yaml_config: dict[str, Any] = {}
        if model_yaml_config_file:
            self.model_yaml_config = get_yaml_config(Path(model_dir, model_yaml_config_file))

    def get_request_header(self, idx: int, exp: str) -> bool:
        """Whether anything but the first request is asked about while ``explain`` is set."""
        return bool(idx and exp and self.explain)
