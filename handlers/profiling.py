"""A trace of one batch by torch's profiler, for ``ENABLE_TORCH_PROFILER``."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

VARIABLE = "ENABLE_TORCH_PROFILER"
FOLDER = "/tmp/pytorch_profiler"  # noqa: S108  where TorchServe's users look for it

_recording = threading.Lock()  # a process has one profiler

logger = logging.getLogger(__name__)


def enabled() -> bool:
    """Whether the environment asks for traces."""
    return bool(os.environ.get(VARIABLE))


def arguments(given: dict[str, Any] | None, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of ``torch.profiler.profile``: the handler's own ``profiler_args``, completed in place.

    The trace goes to ``/tmp/pytorch_profiler/<model name of the manifest>`` unless they say otherwise.
    """
    import torch
    from torch.profiler import ProfilerActivity, tensorboard_trace_handler

    made = given if given is not None else {}
    if not made:
        made["activities"] = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            made["activities"].append(ProfilerActivity.CUDA)
        made["record_shapes"] = True
    if "on_trace_ready" not in made:
        path = os.path.join(FOLDER, (manifest or {}).get("model", {}).get("modelName", ""))
        make_handler: Any = tensorboard_trace_handler
        made["on_trace_ready"] = make_handler(path)
        logger.info("Saving chrome trace to : %s", path)
    return made


def run(arguments: dict[str, Any], answer: Callable[[], Any]) -> tuple[Any, Any]:
    """(what ``answer`` returns, the profiler), with a summary in the log."""
    from torch.profiler import profile

    with _recording, profile(**arguments) as profiler:
        output = answer()
    logger.info(profiler.key_averages().table(sort_by="cpu_time_total", row_limit=10))
    return output, profiler


def phase(name: str) -> AbstractContextManager[Any]:
    """Marks a phase in the trace, where one is made."""
    if not enabled():
        return nullcontext()
    from torch.profiler import record_function

    return record_function(name)
