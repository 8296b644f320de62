"""Frames between the server and a worker: sans-I/O, used by both sides of the socket.

::

     0      1      2      3      4              8              12             16
     +------+------+------+------+--------------+--------------+--------------+------------+-----------+
     | 'm'  | ver  | kind | flags|   batch id   | meta length  | body length  |   meta     |   body    |
     +------+------+------+------+--------------+--------------+--------------+------------+-----------+

Little endian. ``meta`` is one msgpack-encoded struct of ``wire.payload`` (empty for kinds that need none), ``body`` raw
bytes. Both lengths are checked against a cap before anything is allocated; a bad header raises :class:`FrameError`,
after which the stream cannot be trusted and the link is closed.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Final

import msgspec

VERSION: Final = 2  # since 2 the headers of a batch's requests are one piece of bytes
HEADER: Final = struct.Struct("<BBBBIII")
_SIZE: Final = 16
_pack: Final = HEADER.pack
_unpack: Final = HEADER.unpack_from
MAGIC: Final = 0x6D
MAX_META: Final = 64 << 20
MAX_BODY: Final = 1 << 31

_encode: Final = msgspec.msgpack.Encoder().encode


class Kind(IntEnum):
    """Frame kinds; those below 64 go down to the worker, the others come up."""

    LOAD = 1
    BATCH = 2
    CANCEL = 3
    RELEASE = 4
    PING = 5
    DRAIN = 6
    WARM = 7
    HELLO = 65
    READY = 66
    RESULT = 67
    CHUNK = 68
    FAILED = 69
    PONG = 70
    LOG = 71
    WARMED = 72


def encode_meta(meta: object) -> bytes:
    """``meta`` as msgpack.

    Half a surrogate pair, which JSON can bring into a handler and an exception out of it, has no UTF-8: it is escaped.
    """
    try:
        return _encode(meta)
    except UnicodeEncodeError:
        return _encode(_escaped(msgspec.to_builtins(meta, builtin_types=(bytes,))))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, (list, tuple)):
        return [_escaped(one) for one in value]
    if isinstance(value, dict):
        return {_escaped(key): _escaped(one) for key, one in value.items()}
    return value


class FrameError(Exception):
    """The bytes are not frames of this protocol and version."""


class Frame:
    """One frame as it was read. ``body`` is a view of the receive buffer's own copy: keep it as long as you like."""

    __slots__ = ("batch_id", "body", "kind", "meta")

    def __init__(self, kind: int, batch_id: int, meta: bytes, body: memoryview) -> None:
        self.kind = kind
        self.batch_id = batch_id
        self.meta = meta
        self.body = body


def header(kind: int, batch_id: int = 0, meta_length: int = 0, body_length: int = 0) -> bytes:
    """The 16 bytes in front of a frame's meta and body."""
    return _pack(MAGIC, VERSION, kind, 0, batch_id, meta_length, body_length)


def frame(kind: int, batch_id: int = 0, meta: object = None, body: bytes = b"") -> bytes:
    """A whole small frame in one piece; large bodies are sent as separate buffers behind :func:`header` instead."""
    encoded = encode_meta(meta) if meta is not None else b""
    return header(kind, batch_id, len(encoded), len(body)) + encoded + body


class FrameReader:
    """Cuts a byte stream into frames. Linear in the bytes fed, whatever their pieces."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = _SIZE

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes. Raises :class:`FrameError` on a bad header."""
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        buffer = data if len(self._chunks) == 1 else b"".join(self._chunks)
        view = memoryview(buffer)
        frames: list[Frame] = []
        position, end = 0, len(buffer)
        self._need = _SIZE
        while end - position >= _SIZE:
            kind, batch_id, meta_length, body_length = self._check(buffer, position)
            start = position + _SIZE
            stop = start + meta_length + body_length
            if stop > end:
                self._need = stop - position
                break
            body_start = start + meta_length
            frames.append(Frame(kind, batch_id, buffer[start:body_start], view[body_start:stop]))
            position = stop
        rest = buffer[position:]
        self._chunks = [rest] if rest else []
        self._have = len(rest)
        return frames

    def _check(self, buffer: bytes, position: int) -> tuple[int, int, int, int]:
        fields: tuple[int, int, int, int, int, int, int] = _unpack(buffer, position)
        magic, version, kind, _flags, batch_id, meta_length, body_length = fields
        if magic != MAGIC or version != VERSION:
            raise FrameError(
                f"bad frame header {buffer[position : position + 4].hex()}: not protocol version {VERSION}"
            )
        if meta_length > MAX_META or body_length > self._max_body:
            raise FrameError(f"frame of kind {kind} announces {meta_length} + {body_length} bytes, over the limit")
        return kind, batch_id, meta_length, body_length
