"""Reading ``mlserve.toml`` with the line of every key.

The TOML parser gives values without places, and an error that cannot say where is half an error. So the text is scanned
a second time for table headers and keys; values always come from the parser, the scan only supplies line numbers.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from mlserve.errors import SettingError

# By name, because the type checker sees only one of the two: tomllib is in the standard library from 3.11 on.
_toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")
_MULTILINE = re.compile(r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'', re.DOTALL)

Path_ = tuple[str, ...]


class Lines:
    """Where the keys of a TOML text are."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path_, int] = {}
        table: Path_ = ()
        # Newlines stay, so that the count holds, but nothing inside a multi-line string looks like a key.
        text = _MULTILINE.sub(lambda match: '"' + "\n" * match[0].count("\n") + '"', text)
        for number, line in enumerate(text.split("\n"), 1):
            if match := _HEADER.match(line):
                table = _parts(match[1])
                self._lines.setdefault(table, number)
            elif match := _ASSIGNMENT.match(line):
                self._lines.setdefault(table + _parts(match[1]), number)

    def find(self, *path: str) -> int:
        """The line of a key; of the nearest table around it where the key has no line of its own; else 1."""
        for length in range(len(path), 0, -1):
            if line := self._lines.get(path[:length]):
                return line
        return 1


def _parts(dotted: str) -> Path_:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, dotted))


def read_toml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Parse a TOML file. Raises :class:`SettingError` when it cannot be read or is not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingError(f"{path}: cannot read the settings file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingError(f"{path}: the settings file is not UTF-8 text") from None
    try:
        return _toml.loads(text), Lines(text)
    except ValueError as error:
        raise SettingError(f"{path}: not valid TOML: {error}") from None
