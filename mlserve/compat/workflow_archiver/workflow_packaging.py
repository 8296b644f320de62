"""Packing with torch-workflow-archiver's way of failing: a line at ERROR, then exit code 1."""

from __future__ import annotations

import argparse
import logging
import sys

from mlserve.archive import pack_workflow
from mlserve.compat.workflow_archiver.arg_parser import ArgParser
from mlserve.compat.workflow_archiver.version import __version__
from mlserve.compat.workflow_archiver.workflow_archiver_error import WorkflowArchiverError
from mlserve.compat.workflow_archiver.workflow_packaging_utils import WorkflowExportUtils
from mlserve.errors import ArchiveError

log = logging.getLogger(__name__)


def generate_workflow_archive() -> None:
    """Pack what the command line describes."""
    logging.basicConfig(format="%(levelname)s - %(message)s")
    package_workflow(ArgParser.workflow_archiver_args_parser().parse_args())


def package_workflow(args: argparse.Namespace, manifest: str = "") -> None:
    """Pack what ``args`` says; exits with 1 when that fails. ``manifest`` is accepted and not used."""
    try:
        WorkflowExportUtils.validate_inputs(args.workflow_name, args.export_path)
        WorkflowExportUtils.check_war_already_exists(args.workflow_name, args.export_path, args.force)
        path = pack_workflow(
            workflow_name=args.workflow_name,
            spec_file=args.spec_file,
            handler=args.handler,
            extra_files=getattr(args, "extra_files", None),
            export_path=args.export_path,
            force=args.force,
            archiver_version=__version__,
        )
    except (ArchiveError, WorkflowArchiverError) as error:
        log.error("%s", error)
        sys.exit(1)
    log.info("Successfully exported workflow %s to file %s", args.workflow_name, path.parent)
