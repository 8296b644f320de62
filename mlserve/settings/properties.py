"""The syntax of Java properties files, which is what TorchServe's ``config.properties`` is written in.

Only the syntax is here: reading gives (key, value, line) entries in file order, and what the keys mean is known to
:mod:`mlserve.settings.torchserve`. The one addition to the Java syntax is ``$$NAME$$`` inside a value, replaced from
the environment, as TorchServe does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_BLANK = " \t\f"
_WRITTEN = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\f": "\\f", **{char: f"\\{char}" for char in "\\=:#!"}}
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_UNICODE = re.compile(r"[0-9A-Fa-f]{4}")
_VARIABLE = re.compile(r"\$\$(\w|[^$]{2,})\$\$")


class PropertiesError(ValueError):
    """The file cannot be read or parsed; the message starts with the file and line."""


class Property(NamedTuple):
    """One entry. ``line`` is where its key starts, counted from 1."""

    key: str
    value: str
    line: int


def read_properties(path: Path, environ: Mapping[str, str]) -> list[Property]:
    """Read a file. Raises :class:`PropertiesError` when it cannot be read or parsed, naming the line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PropertiesError(f"{path}: cannot read the settings file: {error.strerror}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # the encoding that Java's format has by definition
    return parse_properties(text, environ, path.name)


def parse_properties(text: str, environ: Mapping[str, str], name: str = "config.properties") -> list[Property]:
    """Parse the text of a file called ``name``. A key that appears twice gives two entries; the later one counts.

    Raises :class:`PropertiesError` for a broken ``\\uXXXX`` and for ``$$NAME$$`` where NAME is not in ``environ``.
    """
    entries: list[Property] = []
    for number, line in _logical_lines(text):
        place = f"{name}:{number}"
        end, start = _split(line)
        key = _unescape(line[:end], place)
        value = _unescape(line[start:], place)
        entries.append(Property(key, _substitute(value, environ, f"{place}: {key}"), number))
    return entries


def format_properties(values: Mapping[str, str], comments: Iterable[str] = ()) -> str:
    """The text of a file with these values, as Java writes it, but in ASCII, which every reader takes the same way."""
    lines = [f"#{comment}" for comment in comments]
    lines += [f"{_escape(key, key=True)}={_escape(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _escape(text: str, *, key: bool = False) -> str:
    """Blanks are escaped where they would be taken for something else: all of a key, the first of a value."""
    units = text.encode("utf-16-be", "surrogatepass")
    parts: list[str] = []
    for at in range(0, len(units), 2):
        code = int.from_bytes(units[at : at + 2], "big")
        char = chr(code)
        if char == " " and (key or not at):
            parts.append("\\ ")
        elif char in _WRITTEN:
            parts.append(_WRITTEN[char])
        else:
            parts.append(char if 0x20 <= code < 0x7F else f"\\u{code:04X}")
    return "".join(parts)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations joined and comments and blank lines left out."""
    lines = re.split(r"\r\n|\n|\r", text)
    index = 0
    while index < len(lines):
        number = index + 1
        line = lines[index].lstrip(_BLANK)
        index += 1
        if not line or line[0] in "#!":
            continue
        while _is_continued(line):
            line = line[:-1]
            if index == len(lines):
                break
            line += lines[index].lstrip(_BLANK)
            index += 1
        yield number, line


def _is_continued(line: str) -> bool:
    """Whether an odd number of backslashes ends the line: in pairs they are escaped ones."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _split(line: str) -> tuple[int, int]:
    """(where the key ends, where the value starts): at the first unescaped ``=``, ``:`` or blank."""
    end = 0
    while end < len(line) and line[end] not in _BLANK + "=:":
        end += 2 if line[end] == "\\" else 1
    end = min(end, len(line))
    start = end
    while start < len(line) and line[start] in _BLANK:
        start += 1
    if start < len(line) and line[start] in "=:":
        start += 1
        while start < len(line) and line[start] in _BLANK:
            start += 1
    return end, start


def _unescape(text: str, place: str) -> str:
    if "\\" not in text:
        return text
    parts: list[str] = []
    index = 0
    while index < len(text):
        char = text[index]
        index += 1
        if char != "\\":
            parts.append(char)
        elif index < len(text):
            char = text[index]
            index += 1
            if char != "u":
                parts.append(_ESCAPES.get(char, char))
                continue
            if not _UNICODE.match(text, index):
                raise PropertiesError(f"{place}: \\u must be followed by four hexadecimal digits")
            parts.append(chr(int(text[index : index + 4], 16)))
            index += 4
    # A character outside the basic plane is written as two escapes, a surrogate pair.
    return "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _substitute(value: str, environ: Mapping[str, str], place: str) -> str:
    def lookup(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise PropertiesError(f"{place}: the environment variable {match[1]} of {match[0]} is not set")
        return environ[match[1]]

    return _VARIABLE.sub(lookup, value)
