"""Form bodies into parts: ``multipart/form-data`` and ``application/x-www-form-urlencoded``.

The multipart grammar is python-multipart's; here is only what becomes of it. As in TorchServe a repeated field name
keeps its last value.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mlserve.core.messages import Part
from mlserve.errors import InvalidInput

MAX_PARTS = 1000
MAX_NAME = 4096  # bytes; names travel to the worker apart from the data, and python-multipart has this limit for them
MAX_ESCAPES = 1 << 18  # %XX in a form body: each takes 0.6 us on the event loop, and 64 MiB of them would take 40 s
MAX_BOUNDARY = 70  # RFC 2046, 5.1.1; a longer one makes every search in the body slower

_NO_FORM = (
    "A body that is no form needs a content-type of its own, such as application/octet-stream: curl --data-binary says "
    "application/x-www-form-urlencoded"
)


def parse_multipart(content_type: bytes, body: bytes, typed_fields: bool = True) -> list[Part]:
    """Parts in order of first appearance. Raises :class:`InvalidInput` for a body that is not what its type says.

    Without ``typed_fields`` the content type of a part counts only if the part is a file (has a ``filename``), as in
    TorchServe: its handlers read JSON fields from bytes.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > MAX_BOUNDARY:
        raise InvalidInput(f"multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY} characters in content-type")
    collector = _Collector(typed_fields)
    parser = MultipartParser(boundary, cast(Any, collector.callbacks()))
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidInput(f"Malformed multipart body: {error}") from None
    if not collector.complete:
        raise InvalidInput("Malformed multipart body: it ends before its closing boundary")
    return list(collector.parts.values())


def parse_urlencoded(text: bytes) -> list[Part]:
    """Parts of a form body or a query string. Values are bytes of any encoding, names are read as UTF-8.

    Raises :class:`InvalidInput` when there are too many fields or escapes, or a name is too long.
    """
    if text.count(b"&") >= MAX_PARTS:
        raise InvalidInput(f"More than {MAX_PARTS} form fields. {_NO_FORM}")
    if text.count(b"%") > MAX_ESCAPES:
        raise InvalidInput(f"More than {MAX_ESCAPES} escapes in a form: send such data as multipart/form-data")
    # Not parse_qsl: given bytes it takes only what is ASCII after decoding.
    fields: dict[str, bytes] = {}
    for field in text.split(b"&"):
        if field:
            name, _, value = field.replace(b"+", b" ").partition(b"=")
            if len(name) > MAX_NAME:
                raise InvalidInput(f"A form field has a name of more than {MAX_NAME} bytes. {_NO_FORM}")
            fields[unquote_to_bytes(name).decode("utf-8", "replace")] = unquote_to_bytes(value)
    return [Part(name, value) for name, value in fields.items()]


class _Collector:
    """Callbacks of the multipart parser for one body."""

    def __init__(self, typed_fields: bool) -> None:
        self._typed_fields = typed_fields
        self.parts: dict[str, Part] = {}
        self.complete = False
        self._begun = 0
        self._field = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._begun += 1  # not the names in use: a million parts of one name cost as much as any
        if self._begun > MAX_PARTS:
            raise InvalidInput(f"More than {MAX_PARTS} parts in a multipart body")
        self._headers, self._data = {}, []

    def _header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise InvalidInput("Malformed multipart body: a part has no name in its content-disposition")
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        if not self._typed_fields:
            content_type = (content_type or "application/octet-stream") if b"filename" in options else ""
        text = name.decode("utf-8", "replace")
        self.parts[text] = Part(text, b"".join(self._data), content_type)

    def _finish(self) -> None:
        self.complete = True
