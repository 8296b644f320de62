"""Run the benchmark that ``scripts/bench`` names, so that none of its servers is left behind when it is told to end.

Servers are in sessions of their own, where neither a terminal's Ctrl-C nor the end of this process reaches them.
"""

import importlib
import sys

from mlserve.cli.ending import exit_code, obey_signals
from mlserve.cli.exits import EXIT_INTERRUPTED


def main(name: str, *arguments: str) -> None:
    """``main`` of the module."""
    obey_signals()
    try:
        importlib.import_module(f"benchmarks.{name}").main(arguments)
    except KeyboardInterrupt:
        sys.exit(exit_code(EXIT_INTERRUPTED))


if __name__ == "__main__":
    main(*sys.argv[1:])
