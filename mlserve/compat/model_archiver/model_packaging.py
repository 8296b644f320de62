"""Packing with torch-model-archiver's errors: ``FileNotFoundError`` for a missing file, else its own class."""

from __future__ import annotations

import argparse
import logging
import os

from mlserve.archive import pack
from mlserve.compat.model_archiver.arg_parser import ArgParser
from mlserve.compat.model_archiver.model_archiver_config import ModelArchiverConfig
from mlserve.compat.model_archiver.model_archiver_error import ModelArchiverError
from mlserve.errors import ArchiveError

log = logging.getLogger(__name__)


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Pack what ``config``, or else the command line, describes.

    Raises :class:`ModelArchiverError` or ``FileNotFoundError``, logged at ERROR before.
    """
    logging.basicConfig(format="%(levelname)s - %(message)s")
    if config is None:
        found: argparse.ArgumentParser | ModelArchiverConfig = ArgParser.export_model_args_parser()
        # A test that replaces the parser may hand over a finished configuration.
        parsed = found.parse_args() if isinstance(found, argparse.ArgumentParser) else found
        config = parsed if isinstance(parsed, ModelArchiverConfig) else ModelArchiverConfig.from_args(parsed)
    package_model(config)


def package_model(config: ModelArchiverConfig, manifest: str = "") -> None:
    """Pack ``config``. ``manifest`` is accepted as in TorchServe and not used: the packer writes it."""
    try:
        path = pack(
            model_name=config.model_name,
            version=str(config.version),
            handler=config.handler,
            model_file=config.model_file,
            serialized_file=config.serialized_file,
            extra_files=config.extra_files,
            runtime=config.runtime,
            export_path=config.export_path,
            archive_format=config.archive_format,
            force=config.force,
            requirements_file=config.requirements_file,
            config_file=config.config_file,
        )
    except ArchiveError as error:
        log.error("%s", error.message)
        if "was not found" in error.message and os.path.isdir(config.export_path):
            raise FileNotFoundError(error.message) from None
        raise ModelArchiverError(error.message) from None
    log.info("Successfully exported model %s to file %s", config.model_name, path.parent)
