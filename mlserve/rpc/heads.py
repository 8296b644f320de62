"""What a call begins with: its headers, decoded once for all calls of a connection that begin alike.

HPACK's decoder takes 65 to 150 us per call. But a client that repeats itself sends references into the table of headers
that both sides keep, or literals that are not added to it (RFC 7541, 6.1 and 6.2.2). Such a block changes no state, so
the same bytes mean the same headers until another block adds to the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hpack import Decoder, HPACKError

from mlserve.rpc.frames import ConnectionFault, Error

KEPT = 32  # blocks per connection
HARD = 4  # times the limit: as much is decoded, so that too many headers end their call and not the connection
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])").fullmatch
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_ENCODINGS = {b"": "", b"identity": "", b"gzip": "gzip", b"deflate": "deflate"}
_PSEUDO = (b":method", b":scheme", b":authority", b":path")


class Head:
    """The headers of a call.

    ``method`` is what serves it, None if nothing does. ``timeout`` is in seconds, 0 if there is none, -1 if it is
    unreadable. ``status`` is the HTTP status of a request that is no gRPC call. ``malformed`` says what HTTP/2 does not
    allow, ``excess`` that there is too much.
    """

    __slots__ = (
        "authorization",
        "encoding",
        "excess",
        "malformed",
        "method",
        "origin",
        "path",
        "request_id",
        "status",
        "timeout",
    )

    def __init__(self, fields: list[tuple[bytes, bytes]], methods: Mapping[str, Any]) -> None:
        found: dict[bytes, bytes] = {}
        self.malformed = ""
        regular = False
        for name, value in fields:
            if name[:1] == b":":
                if regular or name not in _PSEUDO or name in found:
                    self.malformed = "pseudo-header fields out of place"
            else:
                regular = True
                if name != name.lower() or name in (b"connection", b"transfer-encoding", b"upgrade"):
                    self.malformed = "a header field that HTTP/2 does not allow"
            found[name] = value  # the last of several counts, as in gRPC's own libraries
        if not all(found.get(name) for name in (b":method", b":scheme", b":path")):
            self.malformed = self.malformed or "no :method, :scheme or :path"
        path = found.get(b":path", b"").decode("latin-1")
        self.path = path[1:]
        self.method = methods.get(path)
        self.status = 200
        if not found.get(b"content-type", b"").startswith(b"application/grpc"):
            self.status = 415
        elif found.get(b":method") != b"POST":
            self.status = 405
        self.request_id = found.get(b"x-request-id", b"")
        self.authorization = found.get(b"authorization", b"")
        self.encoding = _ENCODINGS.get(found.get(b"grpc-encoding", b""))
        self.timeout = 0.0
        given = found.get(b"grpc-timeout")
        limit = _TIMEOUT(given or b"")
        if given and limit is None:
            self.timeout = -1.0
        elif limit is not None:
            self.timeout = max(0.001, int(limit[1]) * _UNITS[limit[2]])
        self.excess = ""
        self.origin: Any = None  # of the access log's lines


class Heads:
    """The decoder of one connection. ``limit`` is in bytes, of all headers of a call together."""

    __slots__ = ("_decoder", "_kept", "_limit", "_methods")

    def __init__(self, methods: Mapping[str, Any], limit: int) -> None:
        self._decoder = Decoder(max_header_list_size=HARD * limit)
        self._limit = limit
        self._methods = methods
        self._kept: dict[bytes, Head] = {}

    def __call__(self, block: bytes) -> Head:
        """The head of a call. Raises ``ConnectionFault``: without its table a connection cannot go on."""
        head = self._kept.get(block)
        if head is None:
            fields, changed = self._decode(block)
            head = Head(fields, self._methods)
            size = sum(len(name) + len(value) + 32 for name, value in fields)  # as RFC 9113, 6.5.2 counts
            if size > self._limit:
                head.excess = f"Headers of {size} bytes are more than {self._limit} (max_header_size)"
            elif not changed:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[block] = head
        return head

    def skip(self, block: bytes) -> None:
        """Of trailers, or of a stream that is over: they may change the table all the same."""
        self._decode(block)

    def _decode(self, block: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The fields, and whether the table has changed."""
        table = self._decoder.header_table.dynamic_entries
        newest, count = table[0] if table else None, len(table)
        try:
            fields: Any = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise ConnectionFault(Error.COMPRESSION_ERROR, f"headers: {error}") from None
        resized = bool(block) and block[0] & 0xE0 == 0x20  # of the table (RFC 7541, 6.3): what fits in, from now on
        changed = resized or len(table) != count or (count > 0 and table[0] is not newest)
        if changed:
            self._kept.clear()
        return fields, changed
