"""The ``mlserve`` command. Importing this package costs nothing: the verbs are loaded when one is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlserve.engine.local.bare import Bare


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` unless given) and exit the process with its code."""
    words = sys.argv[1:] if argv is None else list(argv)
    code = _start(words[1:]) if words[:1] == ["start"] else _run(words)
    from mlserve.cli.ending import exit_code

    sys.exit(exit_code(code))


def _start(arguments: Sequence[str]) -> int:
    bare = _first_worker(arguments)
    try:
        return _start_with(bare, arguments)
    finally:
        if bare is not None:
            bare.end()


def _first_worker(arguments: Sequence[str]) -> Bare | None:
    """A process that may become the first worker's: started before the settings are read, which takes as long as
    what it imports of its own. None where the command line names no model, or another process is to serve.
    """
    named = any(word.startswith("--models") for word in arguments)
    if sys.platform != "linux" or not named or not {"--detach", "-d", "--help", "-h"}.isdisjoint(arguments):
        return None
    if os.environ.get("MLSERVE_WORKERS_SPARE") == "0":  # told so elsewhere, it is ended when that has been read
        return None
    from mlserve.engine.local.bare import start_bare

    return start_bare()


def _start_with(bare: Bare | None, arguments: Sequence[str]) -> int:
    from mlserve.cli.quick import read

    told = read(arguments)
    if told is None:
        return _run(["start", *arguments])
    from mlserve.cli.exits import guarded
    from mlserve.cli.serve import carry_out
    from mlserve.cli.sources import read_settings

    return guarded(lambda: carry_out(told, read_settings(told.line), bare))


def _run(arguments: Sequence[str]) -> int:
    from mlserve.cli.app import run
    from mlserve.cli.ending import obey_signals

    obey_signals()
    return run(arguments)
