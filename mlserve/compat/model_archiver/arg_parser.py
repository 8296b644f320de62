"""torch-model-archiver's command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from mlserve.compat.model_archiver.manifest_components.manifest import RuntimeType
from mlserve.compat.model_archiver.model_archiver_config import ModelArchiverConfig

RUNTIMES = tuple(item.value for item in RuntimeType)
FORMATS = ("tgz", "no-archive", "zip-store", "default")


class ArgParser:
    """Where scripts and tests look for the command line."""

    @staticmethod
    def export_model_args_parser() -> ModelArchiverConfig:
        """What this process's command line says. Wrong usage ends the process with 2."""
        return parse()


def parse(arguments: Sequence[str] | None = None) -> ModelArchiverConfig:
    """The arguments of this process, or ``arguments``. Wrong usage ends the process with 2."""
    parser = argparse.ArgumentParser(
        prog="torch-model-archiver", description="Pack a model, a handler and extra files into an archive."
    )
    add = parser.add_argument
    add("--model-name", required=True, help="name of the model and of the archive")
    add("--serialized-file", help="weights (.pt, .pth), a TorchScript module, or an .onnx file")
    add("--model-file", help="Python file with the one nn.Module class of an eager model")
    add("--handler", required=True, help="built-in handler, or FILE[:FUNCTION]")
    add("--extra-files", help="comma-separated files, directories and globs")
    add("--runtime", default="python", choices=RUNTIMES, help="what runs the handler")
    add("--export-path", default=os.getcwd(), help="directory for the archive; default: the current one")
    add("--archive-format", default="default", choices=FORMATS, help="container of the archive")
    add("-f", "--force", action="store_true", help="overwrite an existing archive")
    add("-v", "--version", required=True, help="version of the model")
    add("-r", "--requirements-file", help="pip requirements of the model")
    add("-c", "--config-file", help="model-config.yaml")
    return ModelArchiverConfig.from_args(parser.parse_args(arguments))
