"""The ``mlserve`` command. Importing this package costs nothing: the verbs are loaded when one is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` unless given) and exit the process with its code."""
    from mlserve.cli.app import run

    sys.exit(run(sys.argv[1:] if argv is None else argv))
