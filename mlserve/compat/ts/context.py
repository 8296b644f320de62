"""``ts.context``: the context with TorchServe's constructor, for handlers' own tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlserve import handler
from mlserve.handler import RequestProcessor

__all__ = ["Context", "RequestProcessor"]


class _AnyContext(type):
    """Every context counts: a worker hands handlers a :class:`mlserve.handler.Context`."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, handler.Context)


class Context(handler.Context, metaclass=_AnyContext):
    """A context made by hand. Only the order of the arguments differs from mlserve's."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            model_name,
            model_dir,
            manifest,
            batch_size,
            gpu,
            model_yaml_config,
            metrics,
            server_version=mms_version,
            limit_max_image_pixels=limit_max_image_pixels,
        )
