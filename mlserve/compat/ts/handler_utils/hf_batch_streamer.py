"""``ts.handler_utils.hf_batch_streamer``: the texts of a whole batch as they are generated. Needs ``transformers``.

``generate(streamer=...)`` of transformers decodes one sequence; this hands each of a batch to a streamer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlserve.handlers.optional import required

__all__ = ["TextIteratorStreamerBatch"]

_streamers = required("transformers.generation.streamers", "TextIteratorStreamerBatch", "transformers")
_Base: Any = _streamers.BaseStreamer


class TextIteratorStreamerBatch(_Base):  # type: ignore[misc]
    """Iterate for lists with one ``{"text": piece}`` per sequence; it ends with the first sequence that has ended.

    ``timeout`` is in seconds, for each piece.
    """

    def __init__(
        self,
        tokenizer: Any,
        batch_size: int,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: Any,
    ) -> None:
        self.batch_size = batch_size
        make = _streamers.TextIteratorStreamer
        self.streamers = [make(tokenizer, skip_prompt, timeout, **decode_kwargs) for _ in range(batch_size)]
        self.streamer_iterators = [iter(streamer) for streamer in self.streamers]

    def put(self, value: Any) -> None:
        """Take the next tokens, ``[batch_size, ...]``. Raises ``ValueError`` for another batch size."""
        if value.shape[0] != self.batch_size:
            raise ValueError(f"Expected tokens of {self.batch_size} sequences, got a tensor of shape {value.shape}")
        for index, streamer in enumerate(self.streamers):
            streamer.put(value[index : index + 1])

    def end(self) -> None:
        """All tokens have been put."""
        for streamer in self.streamers:
            streamer.end()

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        return self

    def __next__(self) -> list[dict[str, str]]:
        pieces: list[Any] = [next(iterator, None) for iterator in self.streamer_iterators]
        if None in pieces:
            raise StopIteration
        return [{"text": piece} for piece in pieces]
