"""Durations that a handler reports itself, as TorchServe's handlers do: ``handler: {profile: true}`` asks for them."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def timed(method: Method) -> Method:
    """Decorate a hook so that it reports the metric ``ts_handler_<name>``, in ms, where the model's yaml asks for it.

    On a GPU the clock is read when the GPU is done, which costs a synchronisation.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        context: Any = getattr(self, "context", None)
        if not _wanted(context):
            return method(self, *args, **kwargs)
        _synchronize()
        started = time.perf_counter()
        result = method(self, *args, **kwargs)
        _synchronize()
        context.metrics.add_time(f"ts_handler_{method.__name__}", (time.perf_counter() - started) * 1000)
        return result

    return wrapper  # type: ignore[return-value]


def _wanted(context: Any) -> bool:
    config = getattr(context, "model_yaml_config", None)
    if not config or "handler" not in config:
        return False
    options = config["handler"]
    return isinstance(options, Mapping) and bool(options.get("profile"))


def _synchronize() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
