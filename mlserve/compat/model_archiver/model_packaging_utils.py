"""The archiver's steps one by one, for scripts that drive them; all others call ``mlserve.archive.pack``.

The order is TorchServe's: manifest text, checks, a staging directory, then the archive of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

from mlserve.archive.manifest import MANIFEST_PATH
from mlserve.archive.packing import check_archive_name
from mlserve.archive.plan import Plan, extra_entries, locate_handler
from mlserve.archive.writing import SUFFIXES, replace_with, write_archive
from mlserve.compat.archiver_steps import ArchiverSteps, staged
from mlserve.compat.model_archiver.manifest_components.manifest import Manifest
from mlserve.compat.model_archiver.manifest_components.model import Model
from mlserve.compat.model_archiver.model_archiver_config import ModelArchiverConfig
from mlserve.compat.model_archiver.model_archiver_error import ModelArchiverError
from mlserve.errors import ArchiveError

__all__ = ["MANIFEST_FILE_NAME", "MAR_INF", "ModelExportUtils", "archiving_options", "zipfile"]  # tests patch the last

archiving_options = SUFFIXES
MAR_INF, _, MANIFEST_FILE_NAME = MANIFEST_PATH.partition("/")


class ModelExportUtils(ArchiverSteps):
    """Where scripts look for the steps."""

    @staticmethod
    def check_model_name_regex_or_exit(model_name: str) -> None:
        """Raises :class:`ModelArchiverError` for a name that no model can have."""
        try:
            check_archive_name(model_name)
        except ArchiveError as error:
            raise ModelArchiverError(error.message) from None

    @staticmethod
    def validate_inputs(model_name: str, export_path: str) -> None:
        """Raises :class:`ModelArchiverError` for a bad name or a directory that is not there."""
        ModelExportUtils.check_model_name_regex_or_exit(model_name)
        if not os.path.isdir(export_path):
            raise ModelArchiverError(
                f"Given export-path {export_path} is not a directory. Point to a valid export-path directory."
            )

    @staticmethod
    def get_archive_export_path(export_file_path: str, model_name: str, archive_format: str) -> str:
        """The path of the archive."""
        return os.path.join(export_file_path, f"{model_name}{SUFFIXES[archive_format]}")

    @staticmethod
    def check_mar_already_exists(
        model_name: str, export_file_path: str | None, overwrite: bool, archive_format: str = "default"
    ) -> str:
        """The directory for the archive. Raises :class:`ModelArchiverError` if one is there and may not go."""
        directory = export_file_path or os.getcwd()
        target = ModelExportUtils.get_archive_export_path(directory, model_name, archive_format)
        if os.path.exists(target) and not overwrite:
            raise ModelArchiverError(
                f"{target} already exists.\n"
                "Please specify --force/-f option to overwrite the model archive output file."
            )
        return directory

    @staticmethod
    def find_unique(files: Iterable[str], suffix: str) -> str | None:
        """The one file with this ending, if any. Raises :class:`ModelArchiverError` when there are several."""
        found = [name for name in files if name.endswith(suffix)]
        if len(found) > 1:
            raise ModelArchiverError(f"Only one {suffix} file can be packed, found {len(found)}: {', '.join(found)}")
        return found[0] if found else None

    @staticmethod
    def generate_model(modelcfg: ModelArchiverConfig) -> Model:
        """The manifest's entry for the model."""
        return Model(
            model_name=modelcfg.model_name,
            serialized_file=modelcfg.serialized_file,
            handler=modelcfg.handler,
            model_file=modelcfg.model_file,
            model_version=modelcfg.version,
            requirements_file=modelcfg.requirements_file,
            config_file=modelcfg.config_file,
        )

    @staticmethod
    def generate_manifest_json(config: ModelArchiverConfig) -> str:
        """The manifest's text; files are named by their base names."""
        return str(Manifest(config.runtime, ModelExportUtils.generate_model(config)))

    @staticmethod
    def copy_artifacts(model_name: str, runtime: str, **files: str | None) -> str:
        """Copy every file to a staging directory and return its path. Keys are those of the command line's files.

        Raises ``FileNotFoundError``, or :class:`ModelArchiverError` for files that cannot be packed together.
        """
        staging = Path(tempfile.mkdtemp(prefix="mlserve-archiver-"))
        plan = Plan(last_wins=True)
        try:
            for key, value in files.items():
                if not value:
                    continue
                if key == "handler":
                    _, file = locate_handler(value, runtime)
                    if file is not None:
                        plan.add(file.name, file)
                elif key == "extra_files":
                    for entry in extra_entries(value):
                        plan.add_extra(entry)
                else:
                    plan.add_named(f"--{key.replace('_', '-')}", value)
        except ArchiveError as error:
            kind = FileNotFoundError if "was not found" in error.message else ModelArchiverError
            raise kind(error.message) from None
        for name, source in plan.sources.items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        return str(staging)

    @staticmethod
    def archive(
        export_file: str, model_name: str, model_path: str, manifest: str, archive_format: str = "default"
    ) -> None:
        """Pack the staging directory ``model_path`` with ``manifest`` into the directory ``export_file``."""
        contents = staged(Path(model_path), MANIFEST_PATH, manifest)
        target = Path(ModelExportUtils.get_archive_export_path(export_file, model_name, archive_format))
        with replace_with(target, force=True) as scratch:
            write_archive(scratch, contents, archive_format, top=model_name, epoch=int(time.time()))
