"""``ts.torch_handler.distributed.base_deepspeed_handler``: a handler whose rank has the GPU of its number."""

from __future__ import annotations

import os
from typing import Any

from mlserve.compat.ts.torch_handler.base_handler import BaseHandler

__all__ = ["BaseDeepSpeedHandler"]


class BaseDeepSpeedHandler(BaseHandler):
    """Loads nothing: a subclass makes the model and gives it to ``get_ds_engine``."""

    def initialize(self, ctx: Any) -> None:
        """Set ``device`` to the rank's number on this machine."""
        self.device: Any = int(os.environ.get("LOCAL_RANK", "0"))
