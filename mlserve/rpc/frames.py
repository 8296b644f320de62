"""HTTP/2 as bytes (RFC 9113): frames, settings, and the header blocks that gRPC answers with.

Header blocks are written as literals that are not indexed (RFC 7541, 6.2.2): they need no state, so the ones that are
always the same are constants.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">HBBBI")  # of a frame: length (24 bits), kind, flags, stream
HEAD_SIZE = HEAD.size
MAX_FRAME = 16384  # bytes of payload, what everybody must take; we ask for no more
MAX_WINDOW = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME_SIZE, MAX_HEADER_LIST = range(1, 7)
_SETTING = struct.Struct(">HI")


class Error(IntEnum):
    """Why a stream or a connection is ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The client breaks the protocol in a way that ends the connection."""

    def __init__(self, error: Error, message: str) -> None:
        super().__init__(message)
        self.error = error
        self.message = message


def frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """What stands before ``length`` bytes of payload."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_head(kind, flags, stream, len(payload)) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    """Our settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """(setting, value) pairs. Raises ``ConnectionFault``."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(Error.FRAME_SIZE_ERROR, "SETTINGS of an odd length")
    yield from _SETTING.iter_unpack(payload)


def window_update(stream: int, more: int) -> bytes:
    """Lets the client send ``more`` bytes."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset(stream: int, error: Error) -> bytes:
    """Ends a stream."""
    return frame(RST_STREAM, 0, stream, error.to_bytes(4, "big"))


def go_away(last: int, error: Error = Error.NO_ERROR, message: str = "") -> bytes:
    """No streams beyond ``last`` are served on this connection."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, error) + message.encode("ascii", "replace"))


def headers_frame(stream: int, block: bytes, end: bool) -> bytes:
    """A header block, in as many frames as it takes."""
    flags = END_STREAM if end else 0
    if len(block) <= MAX_FRAME:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    pieces = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    frames = [frame(HEADERS, flags, stream, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS, stream, pieces[-1])


def sevens(number: int) -> bytes:
    """Seven bits to a byte, the lowest first: HPACK's integers behind their prefix, and Protocol Buffers' varints."""
    coded = bytearray()
    while number > 127:
        coded.append(number & 127 | 128)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def _text(value: bytes) -> bytes:
    """A string literal: its length with a prefix of 7 bits (RFC 7541, 5.1), not Huffman coded."""
    length = len(value)
    if length < 127:
        return bytes((length,)) + value
    return b"\x7f" + sevens(length - 127) + value


def literal(name: bytes, value: bytes) -> bytes:
    """A header field, not indexed. The name is in lower case."""
    return b"\x00" + _text(name) + _text(value)


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without padding and priority. Raises ``ConnectionFault``."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(Error.FRAME_SIZE_ERROR, "padding without a length")
        start, end = 1, end - payload[0]
    if flags & HAS_PRIORITY:
        start += 5
    if start > end:
        raise ConnectionFault(Error.PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]
