"""What travels between a protocol and a model: one request, its answer, the pieces of a stream.

Plain slotted classes, because one of each is made per request; nothing here knows HTTP, gRPC or sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class Headers(list[tuple[bytes, bytes]]):
    """(name, value) pairs that many requests share. An engine keeps in ``wire`` what it makes of them."""

    __slots__ = ("wire",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(pairs)
        self.wire: Any = None


class Part:
    """One named value of a request. A plain body is one part called ``body``."""

    __slots__ = ("content_type", "data", "name")

    def __init__(self, name: str, data: bytes | memoryview, content_type: str = "") -> None:
        self.name = name
        self.data = data
        self.content_type = content_type


class InferenceRequest:
    """One item for a model, decoded by a protocol as far as routing needs and no further.

    ``headers`` are (name, value) byte pairs with the client's own spelling. ``timeout`` is in seconds from arrival;
    0 is none. ``url_path`` is what followed the version in the URL; ``None`` where the protocol has no such notion.
    ``alone`` asks for a batch of its own. ``version`` is the one that the client named, empty where it left the choice
    to the server. ``sequence_id`` is set by protocols that carry it beside the headers.
    """

    __slots__ = (
        "alone",
        "explain",
        "headers",
        "parts",
        "request_id",
        "sequence_id",
        "timeout",
        "url_path",
        "version",
    )

    def __init__(
        self,
        request_id: str,
        parts: Sequence[Part],
        headers: Sequence[tuple[bytes, bytes]] = (),
        *,
        explain: bool = False,
        url_path: str | None = "",
        timeout: float = 0.0,
        alone: bool = False,
        version: str = "",
        sequence_id: str = "",
    ) -> None:
        self.alone = alone
        self.request_id = request_id
        self.parts = parts
        self.headers = headers
        self.explain = explain
        self.url_path = url_path
        self.timeout = timeout
        self.version = version
        self.sequence_id = sequence_id

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


class InferenceResponse:
    """One item's answer. ``content_type`` is empty where neither the handler nor its output tells."""

    __slots__ = ("body", "content_type", "headers", "reason", "status")

    def __init__(
        self,
        body: bytes | memoryview,
        content_type: str = "",
        status: int = 200,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.status = status
        self.reason = reason
        self.headers = headers


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
