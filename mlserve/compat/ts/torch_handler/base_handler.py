"""``ts.torch_handler.base_handler``: the base class of handlers, with TorchServe's reading of two hooks.

Everything else is ``mlserve.handlers.base.BaseHandler``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlserve.handlers import base
from mlserve.handlers.runtimes import onnx_session as _onnx_session

__all__ = ["PROFILER_AVAILABLE", "BaseHandler", "setup_ort_session"]

PROFILER_AVAILABLE = True


class BaseHandler(base.BaseHandler):
    """What a hook returns is handed on as it is, and a batch is explained for the target of its first request."""

    checks_results = False

    def explain_handle(self, data_preprocess: Any, raw_data: list[Any]) -> list[Any]:
        """Call ``get_insights`` with the first row's input and its ``target``, 0 if it names none."""
        row = raw_data[0]
        inputs, target = None, 0
        if isinstance(row, Mapping):
            inputs, target = row.get("data") or row.get("body"), row.get("target") or 0
        insights: list[Any] = self.get_insights(data_preprocess, inputs, _number(target))
        return insights


def _number(target: Any) -> Any:
    """A form's part is bytes."""
    if isinstance(target, (bytes, bytearray)):
        target = bytes(target).decode()
    return int(target) if isinstance(target, str) and target.strip().isdecimal() else target


def setup_ort_session(model_pt_path: str, map_location: str | None) -> Any:
    """An ONNX session for a file, on the GPU if ``map_location`` is "cuda"."""
    from pathlib import Path

    import torch

    return _onnx_session(Path(model_pt_path), torch.device(map_location or "cpu"))
