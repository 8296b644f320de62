"""JSON as TorchServe's parser (Gson, lenient) takes it: scripts send what no strict parser reads.

Beyond RFC 8259 there may be single quotes, names and texts without quotes, ``;`` for ``,``, ``=`` or ``=>`` for ``:``,
and comments (``//``, ``#``, ``/* */``). Texts without quotes stay texts: ``true``, ``null`` and numbers excepted.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<comment> //[^\n]* | \#[^\n]* | /\*.*?\*/ )
    | (?P<mark> => | [{}\[\],:;=] )
    | (?P<text> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' )
    | (?P<bare> [^\s{}\[\],:;=\\/\#"'][^\s{}\[\],:;=\\/\#]* )
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_COLONS = (":", "=", "=>")
_COMMAS = (",", ";")
MAX_DEPTH = 32

Token = tuple[str, str]  # (kind, text); the kind is "mark", "text", "bare" or "end"


def loads(data: bytes) -> Any:
    """Read one value. Raises ValueError that says what is wrong where."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        reader = _Reader(data.decode("utf-8", "replace"))
    value = reader.value(0)
    if reader.token[0] != "end":
        raise reader.wrong("the end")
    return value


class _Reader:
    """One token ahead over the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.token: Token = ("", "")
        self._next()

    def _next(self) -> Token:
        """Give the current token and go on to the next."""
        before = self.token
        while True:
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                if self._text[self._at :].strip():
                    raise ValueError(f"Unexpected character at offset {self._at}")
                self.token = ("end", "")
                return before
            self._at = match.end()
            kind = str(match.lastgroup)
            if kind != "comment":
                self.token = (kind, match[kind])
                return before

    def wrong(self, expected: str) -> ValueError:
        """What is here instead of ``expected``."""
        found = "the end of input" if self.token[0] == "end" else repr(self.token[1][:40])
        return ValueError(f"Expected {expected} but was {found} at offset {self._at}")

    def value(self, depth: int) -> Any:
        """An object, an array or a literal."""
        if depth > MAX_DEPTH:
            raise ValueError(f"More than {MAX_DEPTH} levels of nesting")
        kind, text = self.token
        if (kind, text) == ("mark", "{"):
            return self._object(depth)
        if (kind, text) == ("mark", "["):
            return self._array(depth)
        if kind not in ("text", "bare"):
            raise self.wrong("a value")
        self._next()
        return _unquoted(text) if kind == "text" else _literal(text)

    def _object(self, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._next()
        while self.token != ("mark", "}"):
            kind, text = self._next()
            if kind not in ("text", "bare"):
                raise self.wrong("a name")
            name = _unquoted(text) if kind == "text" else text
            if self._next()[1] not in _COLONS:
                raise self.wrong("':'")
            result[name] = self.value(depth + 1)
            if not self._more("}"):
                break
        self._next()
        return result

    def _array(self, depth: int) -> list[Any]:
        result: list[Any] = []
        self._next()
        while self.token != ("mark", "]"):
            result.append(self.value(depth + 1))
            if not self._more("]"):
                break
        self._next()
        return result

    def _more(self, end: str) -> bool:
        """Step over a separator; False at the end of the collection."""
        if self.token == ("mark", end):
            return False
        if self.token[0] != "mark" or self.token[1] not in _COMMAS:
            raise self.wrong(f"',' or '{end}'")
        self._next()
        if self.token == ("mark", "}"):  # a name has to follow; arrays may end so
            raise self.wrong("a name")
        return True


def _unquoted(text: str) -> str:
    return _ESCAPE.sub(lambda match: _escaped(match[1]), text[1:-1])


def _escaped(text: str) -> str:
    return chr(int(text[1:], 16)) if len(text) == 5 else _ESCAPES.get(text, text)


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    return text
