"""Where snapshots lie and which is the newest: known without the parts that write and restore them."""

from __future__ import annotations

import re
from pathlib import Path

from mlserve.settings.tree import Settings

NAME = re.compile(r"(\d{17})-(startup|snapshot|shutdown)\.cfg")


def snapshot_directory(settings: Settings) -> Path:
    """``models.snapshot_directory``, else ``config`` beside the log files."""
    return Path(settings.models.snapshot_directory or Path(settings.log.directory or "logs") / "config")


def newest_snapshot(directory: Path) -> Path | None:
    """The snapshot with the latest time in its name; ``None`` without any. Other files are not looked at."""
    try:
        found = [(match[1], path) for path in directory.iterdir() if (match := NAME.fullmatch(path.name))]
    except OSError:
        return None
    return max(found)[1] if found else None
