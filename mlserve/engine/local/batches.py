"""A batch as the frames between the processes say it, both ways. No I/O; part of the hot path.

Parts from ``ARENA_FROM`` on go through the shared arena where it has room: uncopied where they were read into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlserve.core.messages import InferenceRequest, InferenceResponse, Like
from mlserve.errors import ErrorKind, ServeError
from mlserve.wire.arena import ARENA_FROM, ArenaError
from mlserve.wire.frames import MAX_BODY, encode_meta
from mlserve.wire.payload import ItemResult, PartMeta, ResultMeta

if TYPE_CHECKING:
    from mlserve.core.job import Batch
    from mlserve.wire.lending import LendingArena

decode_meta: Final = msgspec.msgpack.Decoder(ResultMeta).decode
_LARGE: Final = ARENA_FROM
_SLICED: Final = 16 << 10  # bytes of answers that are cheaper to copy than to look at piece by piece
# In msgpack: the lengths that most parts have, what stands before the items of a BatchMeta, and before the id of one
_NUMBERS: Final = [encode_meta(number) for number in range(1024)]
_LISTS: Final = [bytes((0x91, 0x90 | count)) for count in range(16)]
_ITEM: Final = [b"\x95" + encode_meta("x" * length)[:-length] for length in range(1, 129)]
_KINDS: Final = {kind.value: kind for kind in ErrorKind}


class Malformed(Exception):
    """A worker's answer that contradicts itself or the batch it answers."""


class Outgoing:
    """A batch ready to be written: pieces of metadata, bodies in order, the lengths of both, and ``held``, what lies in
    the arena.

    ``meta`` is a BatchMeta on the wire. What the requests of a connection share is encoded once; other items are made
    of tuples: structs take as long to make as to write (8 items: 4.5 us).
    """

    __slots__ = ("bodies", "held", "length", "meta", "meta_length")

    def __init__(self, batch: Batch, arena: LendingArena | None) -> None:
        self.bodies: list[bytes | memoryview] = []
        self.held: list[bytes | memoryview] = []  # until the worker has answered
        self.length = 0
        jobs = batch.jobs
        begin = _LISTS[len(jobs)] if len(jobs) < 16 else b"\x91\xdd" + len(jobs).to_bytes(4, "big")
        meta, meta_length = [begin], len(begin)
        for job in jobs:
            request = job.request
            like = request.like
            item = b""
            if like is not None:
                data = request.data
                size = len(data)
                if size < _LARGE or arena is None:
                    if not like.after:
                        _fill(like, request)
                    raw_id = request.raw_id
                    number = _NUMBERS[size] if size < 1024 else encode_meta(size)
                    item = b"%b%b%b%b%b" % (_ITEM[len(raw_id) - 1], raw_id, like.before, number, like.after)
                    self.bodies.append(data)
                    self.length += size
            if not item:
                item = self._item(request, arena)
            meta.append(item)
            meta_length += len(item)
        self.meta = meta
        self.meta_length = meta_length

    def _item(self, request: InferenceRequest, arena: LendingArena | None) -> bytes:
        parts: list[Any] = []
        for part in request.parts:
            data = part.data
            size = len(data)
            if size >= _LARGE and arena is not None:
                parts.append(self._large(part.name, part.content_type, data, size, arena))
            else:
                self.bodies.append(data)
                self.length += size
                parts.append((part.name, part.content_type, size))
        headers = encode_meta(request.headers)
        return encode_meta((request.request_id, parts, headers, request.explain, request.url_path))

    def _large(
        self, name: str, content_type: str, data: bytes | memoryview, size: int, arena: LendingArena
    ) -> PartMeta:
        offset = arena.offset_of(data)
        if offset is None:
            room = arena.lend(size)
            if room is None:  # full: this part goes by the socket
                self.bodies.append(data)
                self.length += size
                return PartMeta(name, content_type, size)
            room[:] = data
            data, offset = room, arena.offset_of(room)
        self.held.append(data)
        return PartMeta(name, content_type, size, -1 if offset is None else offset)

    @property
    def too_large(self) -> bool:
        """True when no frame can hold it."""
        return self.length > MAX_BODY


def _fill(like: Like, request: InferenceRequest) -> None:
    like.before = b"\x91\x93" + encode_meta("body") + encode_meta(like.content_type)
    like.after = (
        encode_meta(encode_meta(request.headers)) + encode_meta(request.explain) + encode_meta(request.url_path)
    )


def decode_results(
    meta: ResultMeta, body: memoryview, count: int, arena: LendingArena | None, ended: list[int], batch_id: int
) -> list[InferenceResponse | ServeError]:
    """The results of a batch of ``count`` items. Raises :class:`Malformed`.

    Bodies are views of the frame, or of the reply arena; ``batch_id`` is put into ``ended`` when none of those is left.
    """
    if not meta.listed and len(meta.lengths) == count:
        return _plain_results(meta, body)
    if len(meta.listed) != count:
        raise Malformed(f"{len(meta.items)} results for a batch of {count}")
    results: list[InferenceResponse | ServeError] = []
    position, left = 0, sum(1 for item in meta.listed if item.offset >= 0 and not item.error)

    def one_ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.append(batch_id)

    for item in meta.listed:
        if item.error:
            results.append(_error(item))
            continue
        if item.offset >= 0:
            data: bytes | memoryview = _lent(arena, item, one_ended)
        else:
            end = position + item.length
            if end < position:
                raise Malformed(f"a result of {item.length} bytes")
            data = body[position:end]
            position = end
        results.append(InferenceResponse(data, item.content_type, item.status, item.reason, item.headers))
    if position != len(body):
        raise Malformed(f"results of {position} bytes in a body of {len(body)}")
    return results


def _plain_results(meta: ResultMeta, body: memoryview) -> list[InferenceResponse | ServeError]:
    results: list[InferenceResponse | ServeError] = []
    position, content_type = 0, meta.content_type
    small = len(body) < _SLICED
    whole = bytes(body) if small else b""
    for length in meta.lengths:
        end = position + length
        if end < position:
            raise Malformed(f"a result of {length} bytes")
        if small:
            results.append(InferenceResponse(whole[position:end], content_type))
        else:
            results.append(InferenceResponse(body[position:end], content_type))
        position = end
    if position != len(body):
        raise Malformed(f"results of {position} bytes in a body of {len(body)}")
    return results


def _lent(arena: LendingArena | None, item: ItemResult, ended: Callable[[], object]) -> memoryview:
    if arena is None:
        raise Malformed("a result in an arena that there is not")
    try:
        return arena.lease(item.offset, item.length, ended)
    except ArenaError as error:
        raise Malformed(str(error)) from None


def _error(item: ItemResult) -> ServeError:
    return ServeError(
        item.message,
        kind=_KINDS.get(item.error, ErrorKind.INTERNAL),
        status=item.status if item.status != 200 else None,
        detail=item.detail,
    )


def all_failed(batch: Batch, error: ServeError) -> Sequence[ServeError]:
    """The same error for every item."""
    return [error] * len(batch.jobs)
