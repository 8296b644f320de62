"""What travels between a protocol and a model: one request, its answer, the pieces of a stream, a batch's report.

One of each is made per request, and compiled they are read as fields of a C struct. None of them can be part of a
cycle, so the collector does not know them. Nothing here knows HTTP, gRPC or sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlserve.native import mypyc_attr


@mypyc_attr(acyclic=True)
class Part:
    """One named value of a request. A plain body is one part called ``body``."""

    __slots__ = ("content_type", "data", "name")

    def __init__(self, name: str, data: bytes | memoryview, content_type: str = "") -> None:
        self.name = name
        self.data = data
        self.content_type = content_type


@mypyc_attr(acyclic=True)
class Like:
    """What requests share that differ in nothing but their ids and the data of their one part, called ``body``.

    An engine keeps here what it makes of it: what stands before and behind the length of the data.
    """

    __slots__ = ("after", "before", "content_type")

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type
        self.before = b""
        self.after = b""


@mypyc_attr(acyclic=True)
class InferenceRequest:
    """One item for a model, decoded by a protocol as far as routing needs and no further.

    ``headers`` are (name, value) byte pairs with the client's own spelling. ``timeout`` is in seconds from arrival;
    0 is none. ``url_path`` is what followed the version in the URL; ``None`` where the protocol has no such notion.
    ``alone`` asks for a batch of its own. ``version`` is the one that the client named, empty where it left the choice
    to the server. ``sequence_id`` is set by protocols that carry it beside the headers. ``like`` is None where nothing
    is known to be the same as in other requests.
    ``request_id`` may be given as ASCII bytes, and is a str for whoever asks. Where there is a ``like``, ``data`` may
    stand for the one part.
    """

    __slots__ = (
        "_id",
        "_parts",
        "alone",
        "data",
        "explain",
        "headers",
        "like",
        "sequence_id",
        "timeout",
        "url_path",
        "version",
    )

    def __init__(
        self,
        request_id: str | bytes,
        parts: Sequence[Part] | None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        explain: bool = False,
        url_path: str | None = "",
        timeout: float = 0.0,
        alone: bool = False,
        version: str = "",
        sequence_id: str = "",
        like: Like | None = None,
        data: bytes | memoryview = b"",
    ) -> None:
        self._id = request_id
        self._parts = parts
        self.headers = headers
        self.explain = explain
        self.url_path = url_path
        self.timeout = timeout
        self.alone = alone
        self.version = version
        self.sequence_id = sequence_id
        self.like = like
        self.data = data

    @property
    def parts(self) -> Sequence[Part]:
        """The named values, at least one."""
        if self._parts is None:
            self._parts = (Part("body", self.data, "" if self.like is None else self.like.content_type),)
        return self._parts

    def own_headers(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Set headers that other requests do not have."""
        self._parts, self.like = self.parts, None
        self.headers = headers

    @property
    def request_id(self) -> str:
        """As text."""
        return self._id if isinstance(self._id, str) else self._id.decode("ascii")

    @property
    def raw_id(self) -> bytes:
        """As bytes."""
        return self._id if isinstance(self._id, bytes) else self._id.encode()

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return sum(len(part.data) for part in self.parts)


@mypyc_attr(acyclic=True)
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


@mypyc_attr(acyclic=True)
class BatchReport:
    """What a worker said about a finished batch. Times are in seconds.

    ``waited`` is how long the batch lay in the worker while the one before it was computed. The queue sets
    ``batch_size``.
    """

    __slots__ = ("batch_size", "inference", "metrics", "postprocess", "preprocess", "transfer", "waited")

    def __init__(
        self,
        transfer: float = 0.0,
        preprocess: float = 0.0,
        inference: float = 0.0,
        postprocess: float = 0.0,
        metrics: Sequence[Any] = (),
        waited: float = 0.0,
    ) -> None:
        self.batch_size = 1
        self.transfer = transfer
        self.preprocess = preprocess
        self.inference = inference
        self.postprocess = postprocess
        self.metrics = metrics
        self.waited = waited


@mypyc_attr(acyclic=True)
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


@mypyc_attr(acyclic=True)
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
