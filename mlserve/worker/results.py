"""The answers of one batch as they come together: one :class:`ItemResult` and one body per item, in batch order.

``strict`` (setting ``defaults.strict_results``) keeps TorchServe's rules for what a handler may return, and its texts.
"""

from __future__ import annotations

from typing import Any, Final

from mlserve.errors import ErrorKind
from mlserve.handler import Response
from mlserve.wire.arena import ARENA_FROM
from mlserve.wire.frames import MAX_BODY
from mlserve.wire.payload import ItemResult
from mlserve.worker.encode import UnsupportedOutput, encode_element, encode_strictly
from mlserve.worker.failures import is_refusal, text_of, to_result
from mlserve.worker.link import Buffer

_CANCELLED: Final = ItemResult(error=ErrorKind.CANCELLED.value, message="The client is gone")


def unfit(header: tuple[str, str]) -> bool:
    """Whether this name and value could break out of a header."""
    return not header[0] or any(ord(char) < 32 and char != "\t" for text in header for char in text)


class Results:
    """Collects answers; ``infer`` fills in content types that the handler left open."""

    def __init__(self, count: int, infer: bool, max_size: int, strict: bool = False) -> None:
        self._infer = infer
        self._max_size = max_size
        self._strict = strict
        self.unsupported = ""  # why an element could not be encoded
        self.items: list[ItemResult | None] = [None] * count
        self._types: list[str | None] = [None] * count  # of answers of which there is nothing else to say
        self.bodies: list[Buffer] = [b""] * count

    def cancel(self, index: int) -> None:
        """Nobody waits for this item."""
        self.items[index], self._types[index] = _CANCELLED, None

    def fail(self, index: int, error: BaseException) -> None:
        """This item ends with an error."""
        item = to_result(error)
        if self._strict and not is_refusal(error):
            if "CUDA" in text_of(error):
                item.error = ErrorKind.OUT_OF_MEMORY.value
            out_of_memory = item.error == ErrorKind.OUT_OF_MEMORY.value
            item.message = "Out of resources" if out_of_memory else "Prediction failed"
        self.items[index], self._types[index] = item, None
        self.bodies[index] = b""

    def refuse(self, index: int, message: str) -> None:
        """This item ends with HANDLER_FAILED and no traceback: the answer, not the code, was at fault."""
        self.items[index], self._types[index] = ItemResult(error=ErrorKind.HANDLER_FAILED.value, message=message), None
        self.bodies[index] = b""

    def put(self, index: int, element: Any, reply: Any) -> None:
        """Encode the handler's ``element``; ``reply`` is what was set on the context for it, or None."""
        response: Any = None  # its attributes may be anything, whatever its class says
        kind = type(element)
        if kind is not str and kind is not dict and kind is not list and kind is not bytes:
            if isinstance(element, Exception):
                self.fail(index, element)
                return
            if isinstance(element, Response):
                response = element
                element = response.body
        try:
            body, natural = encode_strictly(element) if self._strict else encode_element(element)
        except UnsupportedOutput as error:
            self.unsupported = str(error)
            self.refuse(index, str(error))
            return
        length = len(body)
        if length > self._max_size:
            self.refuse(
                index, f"The response has {length} bytes, more than server.max_response_size = {self._max_size}"
            )
            return
        self.bodies[index] = body
        if reply is None and response is None:
            self._types[index] = natural if self._infer else ""
            return
        item = self.items[index] = ItemResult(length, natural if self._infer else "")
        if reply is not None:
            self._apply(index, item, reply.content_type, reply.status, reply.headers)
            item.reason = str(reply.reason)
        if response is not None:
            self._apply(index, item, response.content_type, response.status, response.headers)

    def _apply(self, index: int, item: ItemResult, content_type: Any, status: Any, headers: Any) -> None:
        if content_type:
            item.content_type = str(content_type)
        if not isinstance(status, int) or not 200 <= status <= 599:
            self.refuse(index, f"The handler set the response status {status!r}; it must be an integer from 200 to 599")
            return
        if status != 200:
            item.status = int(status)
        for name, value in headers.items():
            pair = (str(name), str(value))
            if unfit(pair):
                self.refuse(index, f"The handler set the response header {pair[0]!r} with a control character in it")
                return
            item.headers = [other for other in item.headers if other[0].lower() != pair[0].lower()] + [pair]

    def plain(self) -> tuple[list[int], str] | None:
        """The lengths of all answers and their common content type, if there is nothing else to say of any of them."""
        types = self._types
        first = types[0] if types else None
        if first is None or types.count(first) != len(types):
            return None
        lengths: list[int] = []
        total = 0
        for body in self.bodies:
            length = len(body)
            if length >= ARENA_FROM:
                return None
            total += length
            lengths.append(length)
        return (lengths, first) if total <= MAX_BODY else None

    def finish(self) -> tuple[list[ItemResult], list[Buffer]]:
        """Every item's result and body. An item that got none, or does not fit the frame, is an error here."""
        total = 0
        for index, kind in enumerate(self._types):
            if kind is not None:
                self.items[index] = ItemResult(len(self.bodies[index]), kind)
        for index, item in enumerate(self.items):
            total += len(self.bodies[index])
            if item is None:
                self.refuse(index, "The handler gave this item no answer")
            elif total > MAX_BODY:
                total -= len(self.bodies[index])
                self.refuse(index, f"The answers of this batch have more than {MAX_BODY} bytes together")
        return [item for item in self.items if item is not None], self.bodies
