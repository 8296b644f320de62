"""Packing with torch-workflow-archiver's way of failing: a line at ERROR, then exit code 1."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from mlserve.archive import pack_workflow
from mlserve.compat.workflow_archiver.arg_parser import ArgParser
from mlserve.errors import ArchiveError

log = logging.getLogger(__name__)


def generate_workflow_archive() -> None:
    """Pack what the command line describes."""
    logging.basicConfig(format="%(levelname)s - %(message)s")
    found: Any = ArgParser.workflow_archiver_args_parser()
    # A test that replaces the parser may hand over finished arguments.
    package_workflow(found.parse_args() if hasattr(found, "parse_args") else found)


def package_workflow(args: argparse.Namespace, manifest: str = "") -> None:
    """Pack what ``args`` says; exits with 1 when that fails. ``manifest`` is accepted and not used."""
    try:
        path = pack_workflow(
            workflow_name=args.workflow_name,
            spec_file=args.spec_file,
            handler=args.handler,
            extra_files=getattr(args, "extra_files", None),
            export_path=args.export_path,
            force=args.force,
        )
    except ArchiveError as error:
        log.error("%s", error.message)
        sys.exit(1)
    log.info("Successfully exported workflow %s to file %s", args.workflow_name, path.parent)
