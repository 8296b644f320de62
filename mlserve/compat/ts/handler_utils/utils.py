"""``ts.handler_utils.utils``: importing a class by its name, and sending a piece of an answer."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

__all__ = ["import_class", "send_intermediate_predict_response"]


def import_class(class_name: str, module_prefix: str | None = None) -> Any:
    """The class ``module.Class``, or ``Class`` of ``module_prefix``. Raises ``ImportError``."""
    if not class_name:
        raise ImportError("The name of the class is empty")
    module, _, name = class_name.rpartition(".")
    full = ".".join(filter(None, (module_prefix, module)))
    if not full:
        raise ImportError(f"{class_name} is in no module: write module.{class_name}, or give module_prefix")
    found = getattr(importlib.import_module(full), name, None)
    if found is None:
        raise ImportError(f"There is no {name} in {full}")
    return found


def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any = None
) -> None:
    """Send the pieces ``ret[index]`` of the requests in ``req_id_map`` now; what the handler returns ends the answers.

    In a group of ranks only the first one's pieces count. ``message`` and ``code`` are for the other end of
    TorchServe's socket and change nothing: a status is set by ``context.set_response_status``.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if context is None:
        raise ValueError("send_intermediate_predict_response needs the context that the handler was called with")
    for index in req_id_map:
        context.send_piece(index, ret[index])
