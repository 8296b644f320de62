"""The workflow archiver's steps one by one, for scripts that drive them; all others call ``pack_workflow``."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from mlserve.archive.packing import WORKFLOW_MANIFEST_PATH, check_archive_name
from mlserve.archive.writing import replace_with, write_archive
from mlserve.compat.archiver_steps import ArchiverSteps, staged
from mlserve.compat.workflow_archiver.manifest_components.manifest import Manifest
from mlserve.compat.workflow_archiver.manifest_components.workflow import Workflow
from mlserve.compat.workflow_archiver.workflow_archiver_error import WorkflowArchiverError
from mlserve.errors import ArchiveError

WAR_INF, _, MANIFEST_FILE_NAME = WORKFLOW_MANIFEST_PATH.partition("/")


class WorkflowExportUtils(ArchiverSteps):
    """Where scripts look for the steps."""

    @staticmethod
    def check_workflow_name_regex_or_exit(workflow_name: str) -> None:
        """Raises :class:`WorkflowArchiverError` for a name that no workflow can have."""
        try:
            check_archive_name(workflow_name)
        except ArchiveError as error:
            raise WorkflowArchiverError(error.message) from None

    @staticmethod
    def validate_inputs(workflow_name: str, export_path: str) -> None:
        """Raises :class:`WorkflowArchiverError` for a bad name or a directory that is not there."""
        WorkflowExportUtils.check_workflow_name_regex_or_exit(workflow_name)
        if not os.path.isdir(export_path):
            raise WorkflowArchiverError(
                f"Given export-path {export_path} is not a directory. Point to a valid export-path directory."
            )

    @staticmethod
    def get_archive_export_path(export_file_path: str, workflow_name: str) -> str:
        """The path of the archive."""
        return os.path.join(export_file_path, f"{workflow_name}.war")

    @staticmethod
    def check_war_already_exists(workflow_name: str, export_file_path: str | None, overwrite: bool) -> str:
        """The directory for the archive. Raises :class:`WorkflowArchiverError` if one is there and may not go."""
        directory = export_file_path or os.getcwd()
        target = WorkflowExportUtils.get_archive_export_path(directory, workflow_name)
        if os.path.exists(target) and not overwrite:
            raise WorkflowArchiverError(
                f"{target} already exists.\n"
                "Please specify --force/-f option to overwrite the workflow archive output file."
            )
        return directory

    @staticmethod
    def generate_workflow(workflow_args: argparse.Namespace) -> Workflow:
        """The manifest's entry for the workflow."""
        return Workflow(workflow_args.workflow_name, workflow_args.spec_file, workflow_args.handler)

    @staticmethod
    def generate_manifest_json(args: argparse.Namespace) -> str:
        """The manifest's text; files are named by their base names."""
        return str(Manifest(WorkflowExportUtils.generate_workflow(args)))

    @staticmethod
    def copy_artifacts(workflow_name: str, artifact_files: Iterable[str | None]) -> str:
        """Copy every file (each entry may be a comma list) to a staging directory; return its path.

        Raises ``FileNotFoundError``.
        """
        staging = tempfile.mkdtemp(prefix=f"{workflow_name}-")
        for file in (file for entry in artifact_files if entry for file in entry.split(",")):
            shutil.copy(file, staging)
        return staging

    @staticmethod
    def archive(export_file: str, workflow_name: str, workflow_path: str, manifest: str) -> None:
        """Pack the staging directory ``workflow_path`` with ``manifest`` into the directory ``export_file``."""
        contents = staged(Path(workflow_path), WORKFLOW_MANIFEST_PATH, manifest)
        target = Path(WorkflowExportUtils.get_archive_export_path(export_file, workflow_name))
        with replace_with(target, force=True) as scratch:
            write_archive(scratch, contents, "default", top=workflow_name, epoch=int(time.time()))
