"""Warm-up for handlers that take whatever a request holds: ``warmup:`` in model-config.yaml, in batches of items.

As :mod:`mlserve.handlers.warmup` does it for named arrays, with ``sizes`` and ``samples``. Everything goes through the
handler's own ``handle``, so that no request pays for what its first call sets up.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from mlserve.handler import Context, PredictionError, RequestInfo

from .warmup import chosen_sizes

logger = logging.getLogger(__name__)


def make_ready(handle: Callable[[list[Any], Context], list[Any]], context: Context, item: Any) -> None:
    """Run every sample, or ``item`` where there is none, in every size of batch. Raises ``ValueError`` if one fails."""
    section = (context.model_yaml_config or {}).get("warmup")
    options = section if isinstance(section, Mapping) else {}
    if not section or options.get("enable") is False:
        return
    unknown = [str(key) for key in options if key not in ("enable", "sizes", "samples")]
    if unknown:
        raise ValueError(f"warmup in model-config.yaml: unknown {', '.join(unknown)}; known are sizes, samples")
    begun = perf_counter()
    names = options.get("samples") or []
    items = [_sample(context, str(name)) for name in ([names] if isinstance(names, str) else names)] or [item]
    for size in chosen_sizes(options.get("sizes"), int(context.system_properties.get("batch_size") or 1)):
        for one in items:
            context.begin([RequestInfo("warm-up")] * size)
            for answer in handle([{"body": one}] * size, context):
                if isinstance(answer, PredictionError):
                    raise ValueError(f"warmup: the model refuses a sample: {answer.message}")
    context.begin([RequestInfo("")])
    logger.info("warmed up in %.2f s", perf_counter() - begun)


def _sample(context: Context, name: str) -> Any:
    """The body of a request: what a ``.json`` file holds, the bytes of any other."""
    directory = Path(context.system_properties["model_dir"]).resolve()
    path = (directory / name).resolve()
    if not path.is_relative_to(directory) or not path.is_file():
        raise ValueError(f"warmup: samples in model-config.yaml: there is no file {name} in the model's directory")
    return json.loads(path.read_bytes()) if path.suffix == ".json" else path.read_bytes()
