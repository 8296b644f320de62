"""``ts.handler_utils.distributed.deepspeed``: a model under DeepSpeed's inference engine. Needs ``deepspeed``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlserve.handlers.optional import required

__all__ = ["create_checkpoints_json", "get_ds_engine"]

CHECKPOINTS = (".bin", ".pt")


def create_checkpoints_json(model_path: str, checkpoints_json: str) -> None:
    """Write the list of the weights below ``model_path`` that DeepSpeed loads a model from."""
    files = sorted(str(path) for path in Path(model_path).rglob("*") if path.suffix in CHECKPOINTS and path.is_file())
    listing = {"type": "ds_model", "checkpoints": files, "version": 1.0}
    Path(checkpoints_json).write_text(json.dumps(listing), encoding="utf-8")


def get_ds_engine(model: Any, ctx: Any) -> Any:
    """The engine for ``model``, as ``deepspeed: {config, checkpoint}`` and ``handler: {model_path}`` say.

    The two files are those of the model's directory. Raises ``ValueError`` for settings that are missing.
    """
    options = ctx.model_yaml_config.get("deepspeed")
    if not isinstance(options, Mapping):
        raise ValueError(f"{ctx.model_name}: model-config.yaml has no section deepspeed")
    handler = ctx.model_yaml_config.get("handler")
    if not isinstance(handler, Mapping) or not handler.get("model_path"):
        raise ValueError(f"{ctx.model_name}: model-config.yaml does not set handler.model_path")
    folder = Path(ctx.system_properties["model_dir"])
    config = checkpoint = None
    if "config" in options:
        config = str(folder / options["config"])
        if not Path(config).is_file():
            raise ValueError(f"{ctx.model_name} has no deepspeed config file {config}")
    if "checkpoint" in options:
        checkpoint = str(folder / options["checkpoint"])
        create_checkpoints_json(handler["model_path"], checkpoint)
    engine = required("deepspeed", "get_ds_engine", "deepspeed")
    return engine.init_inference(model, config=config, base_dir=handler["model_path"], checkpoint=checkpoint)
