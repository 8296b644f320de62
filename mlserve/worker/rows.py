"""Wire metadata -> the rows of ``data`` that a handler gets: parts cut out of a frame or the arena, and decoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mlserve.errors import InvalidInput
from mlserve.wire.arena import Arena
from mlserve.wire.payload import ItemMeta, Load, PartMeta, ReceivedItem

Part = bytearray | memoryview
_COPIED: Final = 16 << 10  # bytes of a batch that are cheaper to copy and cut than to look at piece by piece
RAW: Final = ""
JSON: Final = "JSON"
TEXT: Final = "UTF-8 text"
_FORMS: Final[dict[str, str]] = {"": RAW, "application/json": JSON, "application/octet-stream": RAW, "image/jpeg": RAW}
# Not orjson: that turns integers beyond 64 bits into floats, and is no faster here (40 B object 1.0 against 0.7 us,
# 150,000 floats 18.8 against 15.5 ms). NaN and the like go to the json module.
_parse: Final = msgspec.json.Decoder().decode


class RowDecoder:
    """Turns the raw parts of an item into the row of ``data`` that the handler gets."""

    def __init__(self, load: Load, arena: Arena | None, views: bool = False) -> None:
        self._decode = load.decode_input
        self._reject = load.reject_invalid_json
        self._arena = arena
        self._views = views
        # Of the part before, which most are like: a comparison instead of a hash.
        self._name = "body"
        self._like = ("", RAW)  # content type and form

    def cut(self, items: Sequence[ItemMeta | ReceivedItem], body: memoryview) -> list[list[Part]]:
        """The raw parts of every item, in order: from the arena, or from the frame's body one behind the other.

        Raises ValueError when the lengths do not fit the body or the arena; then the sender's state is not ours.
        """
        size = len(body)
        whole: Part = body if self._views or size >= _COPIED else bytearray(body)
        position = 0
        raw: list[list[Part]] = []
        for item in items:
            parts: list[Part] = []
            for part in item.parts:
                length: int = part.length
                if part.offset >= 0:
                    if self._arena is None:
                        raise ValueError("a part lies in an arena, but this worker was given none")
                    parts.append(self._arena.view(part.offset, length))
                else:
                    end = position + length
                    parts.append(whole[position:end])
                    position = end
            raw.append(parts)
        if position != size:
            raise ValueError(f"the parts of a batch announce {position} bytes, its body has {size}")
        return raw

    def row(self, item: ItemMeta | ReceivedItem, raw: Sequence[Part]) -> dict[str, Any]:
        """One row. Raises :class:`InvalidInput` for a body that is not what its content type says."""
        parts: list[PartMeta] = item.parts
        if len(parts) == 1:
            part = parts[0]
            name: str = part.name
            if name == self._name:
                name = self._name
            else:
                self._name = name
            return {name: self._value(part, raw[0])}
        return {part.name: self._value(part, data) for part, data in zip(parts, raw, strict=True)}

    def _value(self, part: PartMeta, data: Part) -> Any:
        content_type: str = part.content_type
        known, form = self._like
        if content_type != known:
            kept = _FORMS.get(content_type)
            form = _form(content_type) if kept is None else kept
            self._like = (content_type, form)
        if form and self._decode and data:
            try:
                return parse_json(data) if form == JSON else str(data, "utf-8")
            except ValueError as error:
                if self._reject:
                    raise InvalidInput(_complaint(part, form, error)) from None
        if self._views:
            return data
        return data.copy() if isinstance(data, bytearray) else bytearray(data)


def _form(content_type: str) -> str:
    """How a part of this type is decoded; kept for the next one (parsing it took 0.5 us), up to 256 spellings."""
    media = content_type.partition(";")[0].strip().lower()
    form = JSON if media == "application/json" else TEXT if media.startswith("text/") else RAW
    if len(_FORMS) < 256:
        _FORMS[content_type] = form
    return form


def _complaint(part: PartMeta, form: str, error: ValueError) -> str:
    subject = "Request body" if part.name in ("body", "data") else f"Part {part.name!r} of the request"
    reason = f"{error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)
    return f"{subject} is not valid {form}: {reason}; fix it or its Content-Type"


def parse_json(data: Part) -> Any:
    """Parse JSON as Python's ``json`` does, NaN and Infinity included. Raises ValueError with reason and position."""
    try:
        return _parse(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(bytes(data))
    except RecursionError:
        raise ValueError("nested too deeply") from None
