"""Packing with torch-model-archiver's errors: ``FileNotFoundError`` for a missing file, else its own class."""

from __future__ import annotations

import logging

from mlserve.archive import pack
from mlserve.compat.model_archiver.arg_parser import ArgParser
from mlserve.compat.model_archiver.model_archiver_config import ModelArchiverConfig
from mlserve.compat.model_archiver.model_archiver_error import ModelArchiverError
from mlserve.compat.model_archiver.model_packaging_utils import ModelExportUtils
from mlserve.compat.model_archiver.version import __version__
from mlserve.errors import ArchiveError

log = logging.getLogger(__name__)


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Pack what ``config``, or else the command line, describes.

    Raises :class:`ModelArchiverError` or ``FileNotFoundError``, logged at ERROR before.
    """
    logging.basicConfig(format="%(levelname)s - %(message)s")
    package_model(ArgParser.export_model_args_parser() if config is None else config)


def package_model(config: ModelArchiverConfig, manifest: str = "") -> None:
    """Pack ``config``, in which empty text is as good as None.

    ``manifest`` is accepted as in TorchServe and not used: the packer writes it.
    """
    try:
        ModelExportUtils.validate_inputs(config.model_name, config.export_path)
        ModelExportUtils.check_mar_already_exists(
            config.model_name, config.export_path, config.force, config.archive_format
        )
        path = pack(
            model_name=config.model_name,
            version=str(config.version),
            handler=config.handler,
            model_file=config.model_file or None,
            serialized_file=config.serialized_file or None,
            extra_files=(config.extra_files or "").replace("**", "*"),  # which matches one level there
            runtime=config.runtime,
            export_path=config.export_path,
            archive_format=config.archive_format,
            force=config.force,
            requirements_file=config.requirements_file or None,
            config_file=config.config_file or None,
            last_wins=True,
            archiver_version=__version__,
        )
    except ModelArchiverError as error:
        log.error("%s", error)
        raise
    except ArchiveError as error:
        log.error("%s", error.message)
        if "was not found" in error.message:
            raise FileNotFoundError(error.message) from None
        raise ModelArchiverError(error.message) from None
    log.info("Successfully exported model %s to file %s", config.model_name, path.parent)
