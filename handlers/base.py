"""``BaseHandler``: load the archive's model, then preprocess, run and postprocess each batch.

Subclass it and override one of the three hooks. It is compatible with TorchServe's ``BaseHandler``: same attributes,
same hooks, same order. torch is imported when a model is loaded, so a subclass that needs no torch runs without it.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserve.handler import Context, PredictionError

from .labels import FILE, load_label_mapping
from .loading import compile_model, load_model, model_files

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class BaseHandler:
    """Serves a torch model from JSON arrays; the base class for every other handler.

    One item is one JSON array without a batch dimension; ``preprocess`` stacks them. ``input_dtype`` is what it
    makes of JSON numbers, also settable as ``handler: {input_dtype: int64}`` in model-config.yaml.
    """

    input_dtype = "float32"

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, Any] | None = None
        self.device: torch.device | None = None
        self.map_location: str | None = None
        self.initialized = False
        self.context: Context | None = None
        self.manifest: Mapping[str, Any] | None = None
        self.model_pt_path: str | None = None
        self.model_yaml_config: Mapping[str, Any] = {}
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}
        self._refused: dict[int, PredictionError] | None = None

    # -- loading ---------------------------------------------------------------------------------------------------

    def initialize(self, context: Context) -> None:
        """Choose the device and load what the manifest names. Raises ``ValueError`` that says what is wrong."""
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = context.model_yaml_config or {}
        options = self.model_yaml_config.get("handler")
        options = options if isinstance(options, Mapping) else {}
        self.input_dtype = options.get("input_dtype", self.input_dtype)
        directory = Path(context.system_properties["model_dir"])
        self.mapping = load_label_mapping(directory / FILE)
        if importlib.util.find_spec("torch") is not None:
            self.device = self.get_device()
            self.map_location = self.device.type
        code, weights = model_files(directory, self.manifest)
        self.model_pt_path = str(weights) if weights else None
        if code or weights:
            if self.device is None:
                raise ImportError("Loading a model file needs torch: pip install 'mlserve[torch]'")
            self.model = load_model(code, weights, self.device, options.get("model_class", ""))
            if "pt2" in self.model_yaml_config:
                self.model = compile_model(self.model, self.model_yaml_config["pt2"])
        elif self._is_builtin("initialize", "inference", "handle"):
            raise ValueError("The archive holds no model: give --serialized-file, with --model-file if it is weights")
        self.initialized = True

    def get_device(self) -> torch.device:
        """``cuda:gpu_id`` if this worker was given a GPU, else what else accelerates torch here, else the CPU."""
        import torch

        assert self.context is not None
        gpu_id = self.context.system_properties.get("gpu_id")
        if gpu_id is not None:
            if torch.cuda.is_available():
                return torch.device(f"cuda:{gpu_id}")
            if torch.xpu.is_available():
                return torch.device(f"xpu:{gpu_id}")
            logger.warning(
                "This worker was given GPU %s but torch %s sees none: using the CPU", gpu_id, torch.__version__
            )
        if torch.backends.mps.is_available() and self.model_yaml_config.get("deviceType") != "cpu":
            return torch.device("mps")
        return torch.device("cpu")

    def _is_builtin(self, *methods: str) -> bool:
        """Whether none of ``methods`` was overridden by a handler that the user wrote."""
        return all(getattr(type(self), method).__module__.startswith(__package__ or "?") for method in methods)

    # -- hooks -----------------------------------------------------------------------------------------------------

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """Make the model's input of a batch: here one tensor ``[n, ...]`` from each row's JSON array."""
        import torch

        tensors = []
        for index, row in enumerate(data):
            try:
                tensors.append(torch.tensor(numbers(row), dtype=getattr(torch, self.input_dtype)))
            except (ValueError, TypeError) as error:
                self.refuse(index, PredictionError(400, f"Expected a JSON array of numbers: {error}"))
        return torch.stack(tensors).to(self.device) if tensors else None

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the model on what ``preprocess`` made."""
        import torch

        if self.model is None:
            raise RuntimeError("self.model is None: set it in initialize()")
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    def postprocess(self, data: Any) -> list[Any]:
        """Make a list, one element per item, of the model's output: here a tensor ``[n, ...]``."""
        if not hasattr(data, "tolist"):
            raise TypeError(f"The model returned a {type(data).__name__}, not a tensor: override postprocess()")
        return list(data.tolist())

    def get_insights(self, tensor_data: Any, raw_data: Any, target: int = 0) -> list[Any]:
        """Explain a batch, one element per item. Called for ``/explanations``; there is no general way to do it."""
        raise PredictionError(501, "This model has no explanations: its handler does not override get_insights()")

    def describe_handle(self) -> Any:
        """What ``describe`` with customized metadata adds to the model's description."""
        return {}

    # -- one batch -------------------------------------------------------------------------------------------------

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[Any]:
        """Answer a batch: preprocess, inference and postprocess in turn, each timed into ``context.phases``."""
        self.context = context
        if self._asks(context, 0, "describe"):
            return [self.describe_handle()]
        explain = [self._asks(context, index, "explain") for index in range(len(data))]
        self.explain = any(explain)
        self._refused = {}
        try:
            inputs = self._timed("preprocess", self.preprocess, data)
            kept = [index for index in range(len(data)) if index not in self._refused]
            answers: dict[int, Any] = dict(self._refused)
        finally:
            self._refused = None
        if any(explain[index] for index in kept):
            insights = self.explain_handle(inputs, [data[index] for index in kept])
            answers.update(pair for pair in _paired(kept, insights, "get_insights") if explain[pair[0]])
        if not all(explain[index] for index in kept):
            outputs = self._timed("inference", self.inference, inputs)
            results = self._timed("postprocess", self.postprocess, outputs)
            answers.update(pair for pair in _paired(kept, results, "postprocess") if not explain[pair[0]])
        return [answers[index] for index in range(len(data))]

    def explain_handle(self, data_preprocess: Any, raw_data: list[dict[str, Any]]) -> list[Any]:
        """Explain a batch that has been preprocessed."""
        return self.get_insights(data_preprocess, raw_data, self.target)

    def refuse(self, index: int, error: PredictionError) -> None:
        """Fail item ``index`` and go on with the others; for ``preprocess``, which then leaves that item out.

        Outside of :meth:`handle` nothing could put the error in its place, so there it is raised.
        """
        if self._refused is None:
            raise error
        self._refused[index] = error

    def _timed(self, phase: str, hook: Callable[[Any], Any], value: Any) -> Any:
        started = time.perf_counter()
        result = hook(value)
        phases = getattr(self.context, "phases", None)
        if phases is not None:
            phases.add(phase, time.perf_counter() - started)
        return result

    @staticmethod
    def _asks(context: Context, index: int, what: str) -> bool:
        """Whether request ``index`` carries that flag. In a test the context may know nothing of the requests."""
        known = context.get_request_id(index) is not None
        return known and context.get_request_header(index, what) == "True"


def numbers(row: Mapping[str, Any]) -> Any:
    """The JSON value of a row: its ``data`` part, else its body. Raises ``ValueError`` if it is not JSON."""
    value = row.get("data", row.get("body"))
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value)
    if isinstance(value, bytes | str):
        return json.loads(value)
    if value is None:
        raise ValueError(f"no part called 'data' or 'body', got {sorted(row)}")
    return value


def _paired(kept: list[int], results: Any, hook: str) -> list[tuple[int, Any]]:
    """Each result with its item's index. Raises ``ValueError`` if the hook returned too few or too many."""
    if not isinstance(results, list):
        raise TypeError(f"{hook}() must return a list with one element per item, got {type(results).__name__}")
    if len(results) != len(kept):
        raise ValueError(f"{hook}() returned {len(results)} results for {len(kept)} items")
    return list(zip(kept, results, strict=True))
