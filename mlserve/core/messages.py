"""What travels between a protocol and a model: one request, its answer, the pieces of a stream.

One of each is made per request, so they are msgspec structs: made in a third of the time of a class with slots, and
unknown to the garbage collector, as none of them can be part of a cycle. Nothing here knows HTTP, gRPC or sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


class Headers(list[tuple[bytes, bytes]]):
    """(name, value) pairs that many requests share. An engine keeps in ``wire`` what it makes of them."""

    __slots__ = ("wire",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(pairs)
        self.wire: Any = None


class Part(msgspec.Struct, eq=False, gc=False):
    """One named value of a request. A plain body is one part called ``body``."""

    name: str
    data: bytes | memoryview
    content_type: str = ""


class InferenceRequest(msgspec.Struct, eq=False, gc=False):
    """One item for a model, decoded by a protocol as far as routing needs and no further.

    ``headers`` are (name, value) byte pairs with the client's own spelling. ``timeout`` is in seconds from arrival;
    0 is none. ``url_path`` is what followed the version in the URL; ``None`` where the protocol has no such notion.
    ``alone`` asks for a batch of its own. ``version`` is the one that the client named, empty where it left the choice
    to the server. ``sequence_id`` is set by protocols that carry it beside the headers.
    """

    request_id: str
    parts: Sequence[Part]
    headers: Sequence[tuple[bytes, bytes]] = ()
    explain: bool = False
    url_path: str | None = ""
    timeout: float = 0.0
    alone: bool = False
    version: str = ""
    sequence_id: str = ""

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return sum(len(part.data) for part in self.parts)


class Timings:
    """Where a request's time went, in seconds.

    ``transfer`` is both ways between the processes together; ``queue`` includes waiting for a batch to form, and for
    the worker to finish the batch before.
    """

    __slots__ = ("batch_size", "inference", "postprocess", "preprocess", "queue", "transfer")

    def __init__(
        self,
        queue: float = 0.0,
        transfer: float = 0.0,
        preprocess: float = 0.0,
        inference: float = 0.0,
        postprocess: float = 0.0,
        batch_size: int = 1,
    ) -> None:
        self.queue = queue
        self.transfer = transfer
        self.preprocess = preprocess
        self.inference = inference
        self.postprocess = postprocess
        self.batch_size = batch_size


class InferenceResponse(msgspec.Struct, eq=False, gc=False):
    """One item's answer. ``content_type`` is empty where neither the handler nor its output tells."""

    body: bytes | memoryview
    content_type: str = ""
    status: int = 200
    reason: str = ""
    headers: Sequence[tuple[str, str]] = ()


class Chunk:
    """A piece of a streamed answer; the final piece is an :class:`InferenceResponse`.

    ``headers``, ``status`` and ``reason`` are what the handler had set by then: the first piece's belong to the answer
    as a whole.
    """

    __slots__ = ("content_type", "data", "headers", "reason", "status")

    def __init__(
        self,
        data: bytes,
        content_type: str = "",
        headers: Sequence[tuple[str, str]] = (),
        status: int = 200,
        reason: str = "",
    ) -> None:
        self.data = data
        self.content_type = content_type
        self.headers = headers
        self.status = status
        self.reason = reason
