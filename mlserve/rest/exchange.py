"""One request on a fast-lane connection, from complete message to written answer.

The core calls back into it: ``on_done`` once, ``on_chunk`` for each piece of a stream. Whatever is produced before this
exchange is at the head of its connection waits in ``_backlog``, because pipelined answers leave in the order of their
requests.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from mlserve.core.events import STREAM_BACKLOG
from mlserve.core.job import Job
from mlserve.core.messages import Chunk, InferenceResponse
from mlserve.protocols.torchserve import WITHOUT_BODY, Answer, encode, stream_head
from mlserve.rest.http1 import CHUNKED_END, chunk_bytes, length_line

if TYPE_CHECKING:
    from mlserve.rest.connection import LaneConnection
    from mlserve.rest.request_head import RequestHead


class Exchange(Job):
    """A request and its answer. ``finished`` means the answer is complete, ``_backlog`` empty that it is written."""

    __deletable__ = ("_lane",)
    is_head = False
    finished = False
    broken = False  # the answer is incomplete, and the connection must end behind what there is of it
    _ended = 0.0
    _waiting = 0  # bytes in the backlog
    _backlog: list[bytes | memoryview] | None = None
    _status = 0
    _size = 0
    _streaming = False

    def __init__(self, lane: LaneConnection, head: RequestHead, raw_id: bytes, keep_alive: bool) -> None:
        self._lane = lane
        self.head = head
        self.raw_id = raw_id
        self.keep_alive = keep_alive

    @property
    def request_id(self) -> str:
        """As text."""
        return self.raw_id.decode("ascii")

    def leave(self) -> None:
        """The connection has ended, and is not to stay for as long as a worker has the request."""
        del self._lane

    def on_done(self) -> None:
        """The ending of the job."""
        if self.finished:
            return
        self._ended = self.ended
        lane = self._lane
        shared, result = lane.shared, self.result
        if (
            isinstance(result, InferenceResponse)
            and result.status == 200
            and self.keep_alive
            and self.head.chunked
            and not (self._streaming or result.headers or result.reason or self.head.timing or shared.particular)
        ):
            body = result.body
            data = shared.heads.plain(result.content_type, body, self.raw_id, self.ended)
            if data is not None:
                self._status, self._size, self.finished = 200, len(body), True
                if self.is_head:
                    lane.transport.write(data)  # behind an answer that closes the connection there is none
                else:
                    self._emit([data])
                lane.exchange_done(self)
                return
        answer = encode(self, shared.options, self.head.timing)
        if self._streaming:
            self._end_stream(answer, isinstance(result, InferenceResponse))
        else:
            self.answer(answer)

    def answer(self, answer: Answer) -> None:
        """Answer whole. The connection stays open after a success, and, unless TorchServe's way is to close it, after
        errors that leave its framing intact."""
        shared = self._lane.shared
        if shared.closing and self._lane.ends_with(self):
            self.keep_alive = False
        heads = shared.heads
        if heads.closes_after_errors and answer.status >= 400:
            self.keep_alive = False
        self._status, self._size = answer.status, len(answer.body)
        head = self.head
        self._finish(heads.answer(answer, self.request_id, self.keep_alive, head.method != b"HEAD", not head.chunked))

    def on_chunk(self, chunk: Chunk) -> None:
        """A piece of the answer: the first one sends the head."""
        pieces: list[bytes | memoryview] = []
        if not self._streaming:
            self._streaming = True
            first = stream_head(chunk)
            self._status = first.status
            framing = b""
            if first.status in WITHOUT_BODY:
                framing = length_line(first.status, 0)
            elif self.head.chunked:
                framing = b"transfer-encoding: chunked\r\n"
            else:
                self.keep_alive = False  # HTTP/1.0: the end of the connection ends the body
            heads, old = self._lane.shared.heads, not self.head.chunked
            pieces.append(heads.head(first, self.request_id, framing, self.keep_alive, old))
        if len(chunk.data) and self._status not in WITHOUT_BODY:  # an empty chunk would end the body
            pieces.append(chunk_bytes(chunk.data) if self.head.chunked else chunk.data)
            self._size += len(chunk.data)
        self._emit(pieces)
        self._check_backlog()

    def _check_backlog(self) -> None:
        """Nothing else bounds the memory that a stream takes: its client reads too slowly, or not at all yet."""
        if self.is_head:
            if self._lane.transport.get_write_buffer_size() > STREAM_BACKLOG:
                self._lane.transport.abort()
        elif self._waiting > STREAM_BACKLOG:
            self._break_off()
            if self.submitted:
                self._lane.shared.service.cancel(self)

    def _break_off(self) -> None:
        """No status can be sent any more: a body that is cut short is how the client learns, in this answer's turn."""
        self.broken = True
        self.keep_alive = False
        self._finish([])

    def _end_stream(self, answer: Answer, ok: bool) -> None:
        if not ok:
            self._break_off()
            return
        if self._status in WITHOUT_BODY:
            self._finish([])
            return
        pieces: list[bytes | memoryview] = []
        if len(answer.body):
            pieces.append(chunk_bytes(answer.body) if self.head.chunked else answer.body)
            self._size += len(answer.body)
        if self.head.chunked:
            pieces.append(CHUNKED_END)
        self._finish(pieces)

    def _emit(self, pieces: list[bytes | memoryview]) -> None:
        if self.is_head:
            self._lane.write(pieces)
        else:
            self._backlog = self._backlog or []
            self._backlog += pieces
            self._waiting += sum(map(len, pieces))

    def _finish(self, pieces: list[bytes | memoryview]) -> None:
        self._emit(pieces)
        self.finished = True
        self._lane.exchange_done(self)

    def flush(self) -> None:
        """Its turn has come: write what has gathered."""
        self.is_head = True
        if self._backlog:
            self._lane.write(self._backlog)
            self._backlog = None
            self._ended = 0.0  # later than its job

    def log(self) -> float:
        """Count the answer, and write its line in the access log. Returns when the request ended."""
        shared, head, report = self._lane.shared, self.head, self.report
        ended = self._ended or monotonic()
        shared.service.http_counts.count(self._status)
        access = shared.access
        if access is not None and access.enabled:
            origin = head.origin
            if origin is None:
                method, url = head.method.decode("latin-1"), head.url.decode("latin-1")
                origin = head.origin = access.origin(self._lane.client, method, url)
            started = self.arrived if self.submitted else ended
            queue = 0.0 if report is None else self.sent - started + report.waited
            access.note(origin, self._status, self._size, started, ended, self.raw_id, queue, report)
        return ended
