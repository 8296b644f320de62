"""torch-workflow-archiver's command line."""

from __future__ import annotations

import argparse
import os


class ArgParser:
    """Where scripts and tests look for the parser."""

    @staticmethod
    def workflow_archiver_args_parser() -> argparse.ArgumentParser:
        """The parser. Wrong usage ends the process with 2."""
        parser = argparse.ArgumentParser(
            prog="torch-workflow-archiver", description="Pack a workflow specification and its functions."
        )
        add = parser.add_argument
        add("--workflow-name", required=True, help="name of the workflow and of the archive")
        add("--spec-file", required=True, help="YAML file with the models and the graph")
        add("--handler", help="Python file with the functions of the graph")
        add("--export-path", default=os.getcwd(), help="directory for the archive; default: the current one")
        add("-f", "--force", action="store_true", help="overwrite an existing archive")
        add("--extra-files", help="comma-separated files, directories and globs")
        return parser
