"""Answers that come in pieces: generators a handler returns, drained round robin into CHUNK frames."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Mapping
from typing import Any

from mlserve.handler import Response
from mlserve.wire.frames import Kind, encode_meta
from mlserve.wire.payload import ChunkMeta
from mlserve.worker.encode import UnsupportedOutput, encode_element
from mlserve.worker.link import Link
from mlserve.worker.results import unfit

_STREAMS = frozenset({types.GeneratorType, types.AsyncGeneratorType})


def is_stream(value: Any) -> bool:
    """Whether ``value`` is a generator, plain or async."""
    return type(value) in _STREAMS


def as_generator(value: Any, run: Callable[[Any], Any]) -> Generator[Any, None, None]:
    """A plain generator over ``value``; the steps of an async one are carried out by ``run``."""
    if isinstance(value, types.GeneratorType):
        return value
    return _steps(value, run)


def _steps(value: Any, run: Callable[[Any], Any]) -> Generator[Any, None, None]:
    try:
        while True:
            try:
                yield run(value.__anext__())
            except StopAsyncIteration:
                return
    finally:
        run(value.aclose())


class ChunkSender:
    """Sends pieces of the items of one batch."""

    def __init__(self, link: Link, batch_id: int, infer: bool) -> None:
        self._link = link
        self._batch_id = batch_id
        self._infer = infer

    def send(self, index: int, piece: Any, reply: Any, *, first: bool = False) -> None:
        """Send one piece of item ``index``; ``reply`` is what was set on the context for it, or None.

        The ``first`` one brings the status and the headers. Raises ``UnsupportedOutput``, and SystemExit when the
        server is gone: that passes through whatever a handler catches, and there is nobody left to compute for.
        """
        content_type = reply.content_type if reply is not None else ""
        headers = _checked(reply.headers) if reply is not None and first else []
        status, reason = _status(reply) if reply is not None and first else (200, "")
        if isinstance(piece, Response):
            content_type = piece.content_type or content_type
            piece = piece.body
        body, natural = encode_element(piece)
        if len(body):
            meta = ChunkMeta(index, content_type or (natural if self._infer else ""), headers, status, reason)
            try:
                self._link.send(Kind.CHUNK, self._batch_id, encode_meta(meta), [body])
            except OSError:
                raise SystemExit(0) from None


def _status(reply: Any) -> tuple[int, str]:
    if not isinstance(reply.status, int) or not 200 <= reply.status <= 599:
        raise UnsupportedOutput(
            f"The handler set the response status {reply.status!r}; it must be an integer from 200 to 599"
        )
    return int(reply.status), str(reply.reason)


def _checked(headers: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = [(str(name), str(value)) for name, value in headers.items()]
    for pair in pairs:
        if unfit(pair):
            raise UnsupportedOutput(f"The handler set the response header {pair[0]!r} with a control character in it")
    return pairs


def drain(
    streams: dict[int, Generator[Any, None, None]],
    send: Callable[[int, Any], None],
    is_cancelled: Callable[[int], bool],
    ended: Callable[[int, Exception | None], None],
) -> None:
    """Send one piece of each stream in turn until all have ended; one that nobody waits for is closed.

    ``ended`` is called once for each, with what it raised or None.
    """
    while streams:
        for row, stream in list(streams.items()):
            error: Exception | None = None
            try:
                if not is_cancelled(row):
                    send(row, next(stream))
                    continue
                stream.close()
            except StopIteration:
                pass
            except Exception as raised:
                error = raised
                stream.close()
            del streams[row]
            ended(row, error)
