"""The ``mlserve`` command. Importing this package costs nothing: the verbs are loaded when one is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` unless given) and exit the process with its code."""
    words = sys.argv[1:] if argv is None else list(argv)
    sys.exit(_start(words[1:]) if words[:1] == ["start"] else _run(words))


def _start(arguments: Sequence[str]) -> int:
    from mlserve.cli.quick import read

    told = read(arguments)
    if told is None:
        return _run(["start", *arguments])
    from mlserve.cli.exits import guarded
    from mlserve.cli.serve import carry_out
    from mlserve.cli.sources import read_settings

    return guarded(lambda: carry_out(told, read_settings(told.line)))


def _run(arguments: Sequence[str]) -> int:
    from mlserve.cli.app import run

    return run(arguments)
