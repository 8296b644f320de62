"""``torch-workflow-archiver``: exit 0 packed, 1 failed with the reason on standard error, 2 wrong usage."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command; returns 0."""
    from mlserve.compat.workflow_archiver.workflow_packaging import generate_workflow_archive

    generate_workflow_archive()
    return 0


if __name__ == "__main__":
    sys.exit(main())
