"""Large answers go through the reply arena; they stay there until the server says RELEASE for their batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mlserve.wire.arena import ARENA_FROM, Arena
from mlserve.wire.payload import ItemResult
from mlserve.worker.link import Buffer


class Replies:
    """Places bodies in the arena and frees them; called from both threads. Without an arena all bodies go inline."""

    def __init__(self, arena: Arena | None) -> None:
        self._arena = arena
        self._held: dict[int, list[int]] = {}
        self._lock = threading.Lock()

    def place(self, batch_id: int, items: Sequence[ItemResult], bodies: list[Buffer]) -> list[Buffer]:
        """Copy large bodies into the arena, set their items' ``offset``, and return the bodies that remain inline."""
        arena = self._arena
        if arena is None:
            return bodies
        for body in bodies:
            if len(body) >= ARENA_FROM:
                break
        else:
            return bodies
        offsets = []
        inline: list[Buffer] = []
        with self._lock:
            for item, body in zip(items, bodies, strict=True):
                offset = arena.alloc(len(body)) if len(body) >= ARENA_FROM else None
                if offset is None:
                    inline.append(body)
                    continue
                arena.write(offset, body)
                item.offset = offset
                offsets.append(offset)
            if offsets:
                self._held[batch_id] = offsets
        return inline

    def release(self, batch_id: int) -> None:
        """The server has read the batch's answers."""
        with self._lock:
            for offset in self._held.pop(batch_id, ()):
                if self._arena is not None:
                    self._arena.free(offset)
