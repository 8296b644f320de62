"""The archiver's arguments as one object."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass, field, fields


@dataclass
class ModelArchiverConfig:
    """torch-model-archiver's flags, in snake case."""

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    runtime: str = "python"
    export_path: str = field(default_factory=os.getcwd)
    archive_format: str = "default"
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None

    @classmethod
    def from_args(cls, args: Namespace) -> ModelArchiverConfig:
        """From parsed arguments, which must have every field."""
        return cls(**{item.name: getattr(args, item.name) for item in fields(cls)})
