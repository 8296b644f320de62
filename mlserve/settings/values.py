"""From what a source holds (text, or a TOML value) to a setting's typed value.

Failures are ``ValueError`` with what was expected and what was given; the caller puts file and line in front.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mlserve.settings.option import Option

_SIZE = re.compile(r"(\d+)\s*([KMG]i?B?|B)?", re.IGNORECASE)
_POWER = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Given(NamedTuple):
    """A value for ``key`` (``section.field``) as one source holds it, and the source in words."""

    key: str
    value: Any
    source: str


def convert(option: Option, raw: Any) -> Any:
    """Return ``raw`` as the option's type. Text is parsed; other values must have the type already.

    Raises ``ValueError`` for a wrong type, a value out of range, or one that is none of the choices.
    """
    try:
        value = _CONVERTERS[option.kind](raw)
    except (ValueError, TypeError):
        raise ValueError(f"expected {expected(option)}, got {shown(raw)}") from None
    for number in value if option.kind == "ints" else (value,):
        if (option.low is not None and number < option.low) or (option.high is not None and number > option.high):
            raise ValueError(f"expected {expected(option)}, got {shown(raw)}")
    if option.choices and value not in option.choices:
        raise ValueError(f"expected {expected(option)}, got {shown(raw)}")
    if option.kind in ("regex", "regexes"):
        _check_patterns((value,) if option.kind == "regex" else value)
    return value


def expected(option: Option) -> str:
    """What a value of this option looks like, in words."""
    if option.choices:
        return "one of " + ", ".join(repr(choice) for choice in option.choices)
    words = _WORDS[option.kind]
    if option.low is not None and option.high is not None:
        words += f" from {written(option.low)} to {written(option.high)}"
    elif option.low is not None:
        words += f" of at least {written(option.low)}"
    return words


def shown(raw: Any) -> str:
    """A value as an error message quotes it: escaped and never longer than a line."""
    text = repr(raw)
    return text if len(text) <= 80 else text[:77] + "..."


def written(value: Any) -> str:
    """A value as it would be written in an environment variable; used by ``config show`` and the reference."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(str(item) for item in value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = _text(raw).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


def _int(raw: Any) -> int:
    if isinstance(raw, str):
        return int(raw.strip())
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise TypeError
    return raw


def _float(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise TypeError
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError
    return value


def _size(raw: Any) -> int:
    if not isinstance(raw, str):
        return _int(raw)
    match = _SIZE.fullmatch(raw.strip())
    if match is None:
        raise ValueError
    unit = (match[2] or "").upper()
    base = 1000 if unit.endswith("B") and "I" not in unit else 1024  # as IEC and SI have it; a bare K is 1024
    return int(match[1]) * int(base ** _POWER[unit[:1]])


def _texts(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(item.strip() for item in raw.split(",") if item.strip())
    return tuple(_text(item) for item in _list(raw))


def _ints(raw: Any) -> tuple[int, ...]:
    items = [item for item in raw.split(",") if item.strip()] if isinstance(raw, str) else _list(raw)
    return tuple(_int(item) for item in items)


def _gpu_ids(raw: Any) -> tuple[int, ...] | None:
    if isinstance(raw, str) and raw.strip().lower() in ("auto", "none"):
        return None if raw.strip().lower() == "auto" else ()
    ids = _ints(raw)
    if isinstance(raw, str) and not ids:
        raise ValueError
    if any(number < 0 for number in ids) or len(set(ids)) != len(ids):
        raise ValueError
    return ids


def _list(raw: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(raw, list | tuple):
        raise TypeError
    return raw


def _check_patterns(patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"expected a regular expression, but {shown(pattern)} is none: {error}") from None


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "bool": _bool,
    "int": _int,
    "float": _float,
    "size": _size,
    "texts": _texts,
    "regex": _text,
    "regexes": _texts,
    "ints": _ints,
    "gpu_ids": _gpu_ids,
}
_WORDS = {
    "text": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "size": "a size such as 67108864 or 64MiB",
    "texts": "a list of texts",
    "regex": "a regular expression",
    "regexes": "a list of regular expressions",
    "ints": "a list of whole numbers",
    "gpu_ids": "'auto', 'none' or distinct GPU ids such as 0,1",
}
