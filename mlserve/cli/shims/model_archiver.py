"""``torch-model-archiver``: exit 0 packed, 2 wrong usage, 1 with a traceback for the rest, as scripts expect it."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or raises what :mod:`mlserve.compat.model_archiver` raises."""
    from mlserve.compat.model_archiver.arg_parser import parse
    from mlserve.compat.model_archiver.model_packaging import generate_model_archive

    generate_model_archive(parse(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
