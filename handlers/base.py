"""``BaseHandler``: load the archive's model, then preprocess, run and postprocess each batch.

Subclass it and override one of the three hooks. It is compatible with TorchServe's ``BaseHandler``: same attributes,
same hooks, same order. torch is imported when a model is loaded, so a subclass that needs no torch runs without it.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserve.handler import Context, PredictionError

from . import profiling
from .explaining import target_of
from .labels import labels_in
from .loading import check_files, compile_model, load_eager, load_torchscript, model_files
from .runtimes import SUFFIXES, aot_library, check_threads, is_session, load_runtime, run_onnx, wants_compiled
from .timing import timed

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class BaseHandler:
    """Serves a torch model from JSON arrays; the base class for every other handler.

    One item is one JSON array without a batch dimension; ``preprocess`` stacks them. ``input_dtype`` is what it
    makes of JSON numbers, also settable as ``handler: {input_dtype: int64}`` in model-config.yaml.
    """

    input_dtype = "float32"

    # Here and not only in __init__: subclasses exist that never call it.
    model: Any = None
    mapping: dict[str, Any] | None = None
    device: torch.device | None = None
    map_location: str | None = None
    initialized = False
    context: Context | None = None
    manifest: Mapping[str, Any] | None = None
    model_pt_path: str | None = None
    model_yaml_config: Mapping[str, Any] = {}
    explain = False
    target = 0
    profiler_args: dict[str, Any] | None = None
    checks_results = True  # whether handle() insists on one result per item, and says which hook lost them
    _refused: dict[int, PredictionError] | None = None

    def __init__(self) -> None:
        self.profiler_args = {}

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
        self.mapping = labels_in(directory)
        if importlib.util.find_spec("torch") is not None:
            self.device = self.get_device()
            self.map_location = self.device.type
        code, weights = model_files(directory, self.manifest)
        self.model_pt_path = str(weights) if weights else None
        if code or weights:
            if self.device is None:
                raise ImportError("Loading a model file needs torch: pip install 'mlserve[torch]'")
            check_files(code, weights)
            self.model = self._loaded(directory, code, weights)
        elif self._is_builtin("initialize", "inference", "handle"):
            raise ValueError("The archive holds no model: give --serialized-file, with --model-file if it is weights")
        self.initialized = True

    def _loaded(self, directory: Path, code: Path | None, weights: Path | None) -> Any:
        """The model in eval mode, on the device and compiled as model-config.yaml says."""
        if code is None and weights is not None and weights.suffix in SUFFIXES:
            if weights.suffix == ".so":
                check_threads(weights, self._threads())
                return self._load_torch_export_aot_compile(str(weights))
            return load_runtime(weights, self.device, self._threads())  # type: ignore[arg-type]
        if code is not None:
            model = self._load_pickled_model(str(directory), str(code.relative_to(directory)), self.model_pt_path)
            model.to(self.device)
        else:
            model = self._load_torchscript_model(str(weights))
        model.eval()
        if "pt2" in self.model_yaml_config:
            return compile_model(model, self.model_yaml_config["pt2"], self._threads())
        return self._optimized(model)

    def _threads(self) -> int:
        """How many batches are computed at once."""
        return int(getattr(self.context, "handler_threads", 1))

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        """Make the module of ``model_file`` and fill in the weights, if there are any."""
        options = self.model_yaml_config.get("handler")
        name = options.get("model_class", "") if isinstance(options, Mapping) else ""
        mapped = getattr(self.context, "own_files", False) and (self.device is None or self.device.type == "cpu")
        weights = Path(model_pt_path) if model_pt_path else None
        return load_eager(Path(model_dir, model_file), weights, name, mapped=mapped)

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        """Load a TorchScript file to the device."""
        return load_torchscript(Path(model_pt_path), self.device)  # type: ignore[arg-type]

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        """Load a library that AOTInductor compiled."""
        return aot_library(Path(model_so_path), self.device)  # type: ignore[arg-type]

    def _use_torch_export_aot_compile(self) -> bool:
        """Whether model-config.yaml says ``pt2: {export: {aot_compile: true}}``."""
        return wants_compiled(self.model_yaml_config.get("pt2"))

    def _optimized(self, model: Any) -> Any:
        """The model as Intel's extension makes it, where the server was told to use it (``workers.ipex``)."""
        if os.environ.get("TS_IPEX_ENABLE") != "true":
            return model
        try:
            ipex: Any = importlib.import_module("intel_extension_for_pytorch")
        except ImportError:
            logger.warning("workers.ipex is on, but intel-extension-for-pytorch is not installed: going on without it")
            return model
        return ipex.optimize(model)

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

    @timed
    def preprocess(self, data: Any) -> Any:
        """Make the model's input of a batch: here one tensor ``[n, ...]`` from each row's JSON array.

        Inside an envelope, or called by a subclass, ``data`` may be the arrays themselves: whole numbers then stay
        whole, as in TorchServe, unless model-config.yaml says what they become.
        """
        import torch

        if not all(isinstance(row, Mapping) for row in data):
            options = getattr(self, "model_yaml_config", {}).get("handler")  # a subclass may initialize by itself
            chosen = options.get("input_dtype") if isinstance(options, Mapping) else None
            return torch.as_tensor(data, device=self.device, dtype=getattr(torch, chosen) if chosen else None)
        tensors = []
        for index, row in enumerate(data):
            try:
                tensors.append(torch.tensor(numbers(row), dtype=getattr(torch, self.input_dtype)))
            except (ValueError, TypeError) as error:
                self.refuse(index, PredictionError(400, f"Expected a JSON array of numbers: {error}"))
        return torch.stack(tensors).to(self.device) if tensors else None

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the model on what ``preprocess`` made."""
        import torch

        if self.model is None:
            raise RuntimeError("self.model is None: set it in initialize()")
        if is_session(self.model):
            return run_onnx(self.model, data, *args)
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """Make a list, one element per item, of the model's output: here a tensor ``[n, ...]``."""
        if not hasattr(data, "tolist"):
            raise TypeError(f"The model returned a {type(data).__name__}, not a tensor: override postprocess()")
        return list(data.tolist())

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any = 0) -> list[Any]:
        """Explain a batch, one element per item. Called for ``/explanations``; there is no general way to do it."""
        raise PredictionError(501, "This model has no explanations: its handler does not override get_insights()")

    def describe_handle(self) -> Any:
        """What ``describe`` with customized metadata adds to the model's description."""
        return {}

    # -- one batch -------------------------------------------------------------------------------------------------

    def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch: preprocess, inference and postprocess in turn, each timed into ``context.phases``."""
        started = time.perf_counter()
        self.context = context
        output: list[Any]
        if profiling.enabled():
            if self.manifest is None:
                self.manifest = context.manifest
            output, _ = self._infer_with_profiler(data)
        elif self._is_describe():
            return [self.describe_handle()]
        else:
            output = self._answer(data)
        self._report(context, started)
        return output

    @property
    def ahead(self) -> Callable[[list[Any], Context], Callable[[], list[Any]]] | None:
        """What preprocesses a batch while another computes; None where ``handle`` was overridden.

        It may be called in any thread, and returns what answers the batch in the main thread. Each batch has a shallow
        copy of the handler: what hooks put on ``self`` is there for the batch's later hooks, and gone with it.
        """
        return self._ahead if type(self).handle is BaseHandler.handle else None

    def _ahead(self, data: list[Any], context: Context) -> Callable[[], list[Any]]:
        started = time.perf_counter()
        own = copy.copy(self)
        own.context = context
        if profiling.enabled() or own._is_describe():
            return lambda: own.handle(data, context)
        prepared = own._prepared(data)
        spent = time.perf_counter() - started

        def finish() -> list[Any]:
            resumed = time.perf_counter() - spent
            output = own._completed(data, *prepared)
            own._report(context, resumed)
            return output

        return finish

    def _answer(self, data: list[Any]) -> list[Any]:
        return self._completed(data, *self._prepared(data))

    def _prepared(self, data: list[Any]) -> tuple[Any, list[bool], dict[int, Any]]:
        """What ``preprocess`` made of the rows it kept, which rows are to be explained, and the others' errors."""
        explain = self._explained(len(data))
        self.explain = any(explain)
        self._refused = {}
        try:
            inputs = self._timed("preprocess", self.preprocess, data)
            return inputs, explain, dict(self._refused)
        finally:
            self._refused = None

    def _completed(self, data: list[Any], inputs: Any, explain: list[bool], answers: dict[int, Any]) -> list[Any]:
        kept = [index for index in range(len(data)) if index not in answers]
        whole = not answers and not self.checks_results
        if any(explain[index] for index in kept):
            try:
                insights = self.explain_handle(inputs, [data[index] for index in kept])
            except PredictionError as error:  # what asks for predictions in the same batch is answered
                insights = [error] * len(kept)
            if whole and all(explain):
                return insights
            answers.update(pair for pair in _paired(kept, insights, "get_insights") if explain[pair[0]])
        if not all(explain[index] for index in kept):
            outputs = self._timed("inference", self.inference, inputs)
            results: list[Any] = self._timed("postprocess", self.postprocess, outputs)
            if whole and not any(explain):
                return results
            answers.update(pair for pair in _paired(kept, results, "postprocess") if not explain[pair[0]])
        return [answers[index] for index in range(len(data))]

    def _infer_with_profiler(self, data: list[Any]) -> tuple[list[Any], Any]:
        """(answers, profiler) of a batch; the trace is written as ``profiler_args`` say."""
        self.profiler_args = profiling.arguments(self.profiler_args, self.manifest)
        traced: tuple[list[Any], Any] = profiling.run(self.profiler_args, lambda: self._answer(data))
        return traced

    def explain_handle(self, data_preprocess: Any, raw_data: list[Any]) -> list[Any]:
        """Explain a batch that has been preprocessed, for the class that each row's ``target`` names."""
        targets, wrong = [], {}
        for index, row in enumerate(raw_data):
            try:
                targets.append(target_of(row, self.target))
            except PredictionError as error:
                targets.append(self.target)
                wrong[index] = error
        same = all(target is targets[0] or target == targets[0] for target in targets)
        insights = self.get_insights(data_preprocess, raw_data, targets[0] if same else targets)
        if not wrong or not isinstance(insights, list) or len(insights) != len(raw_data):
            return insights
        return [wrong.get(index, insight) for index, insight in enumerate(insights)]

    def refuse(self, index: int, error: PredictionError) -> None:
        """Fail item ``index`` and go on with the others; for ``preprocess``, which then leaves that item out.

        Outside of :meth:`handle` nothing could put the error in its place, so there it is raised.
        """
        if self._refused is None:
            raise error
        self._refused[index] = error

    def _timed(self, phase: str, hook: Callable[[Any], Any], value: Any) -> Any:
        started = time.perf_counter()
        with profiling.phase(phase):
            result = hook(value)
        phases = getattr(self.context, "phases", None)
        if phases is not None:
            phases.add(phase, time.perf_counter() - started)
        return result

    @staticmethod
    def _report(context: Context, started: float) -> None:
        """Add the metric HandlerTime, unless the server has no use for it."""
        if getattr(context, "report_times", True) and context.metrics is not None:
            context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")

    def _is_explain(self) -> bool:
        """Whether the batch is to be explained; asked of its first request."""
        if _asks(self.context, 0, "explain"):
            self.explain = True
            return True
        return False

    def _is_describe(self) -> bool:
        """Whether the model is to be described, in a batch of its own."""
        return _asks(self.context, 0, "describe")

    def _explained(self, count: int) -> list[bool]:
        """Which of ``count`` items are to be explained. Several may be of one request, where an envelope opened it."""
        ids = getattr(self.context, "request_ids", None)
        requests = getattr(self.context, "requests_of_items", None)
        if not isinstance(requests, list) or len(requests) != count:
            requests = list(range(count)) if isinstance(ids, Mapping) and len(ids) == count else None
        if type(self)._is_explain is not BaseHandler._is_explain or requests is None:
            return [self._is_explain()] * count
        return [_asks(self.context, index, "explain") for index in requests]


def _asks(context: Any, index: int, what: str) -> bool:
    """Whether request ``index`` carries that flag. In a test the context may know nothing of the requests."""
    if context is None or (hasattr(context, "get_request_id") and context.get_request_id(index) is None):
        return False
    return bool(context.get_request_header(index, what) == "True")


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
