"""Run the benchmark that ``scripts/bench`` names, so that none of its servers is left behind when it is told to end.

Servers are in sessions of their own, where neither a terminal's Ctrl-C nor the end of this process reaches them.
"""

import importlib
import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_in_order(number: int, _: FrameType | None = None) -> None:
    """Raise SystemExit, so that whatever is open is closed; another signal does not interrupt that."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main(name: str, *arguments: str) -> None:
    """``main`` of the module."""
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:  # as nohup has it
            signal.signal(each, end_in_order)
    importlib.import_module(f"benchmarks.{name}").main(arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
