"""What the core needs from outside, as protocols: a clock, slots to send batches to, an engine that provides them,
and a source that turns what a user names into a :class:`ModelSpec`.

The direction of calls: the core calls these; an engine calls back only through :class:`SlotEvents`.
All of it runs on one event loop and none of it is thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mlserve.core.job import Batch
    from mlserve.core.messages import BatchReport, Chunk, InferenceResponse
    from mlserve.core.model import ModelSpec, SpareInfo, WorkerInfo
    from mlserve.errors import ServeError


class Cancellable(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None:
        """Make sure the call does not happen."""


class Clock(Protocol):
    """The part of ``asyncio.AbstractEventLoop`` that the core uses; tests bring one that they advance by hand."""

    def time(self) -> float:
        """Seconds on a monotonic clock."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object:
        """Run ``callback`` in the next turn."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Cancellable:
        """Run ``callback`` after ``delay`` seconds."""


class Slot(Protocol):
    """A loaded worker. It computes ``handler_threads`` batches, usually one, and one more waits in it, unless its model
    is ``concurrent``: then each request is a batch, and as many are in flight as the model's queue allows."""

    worker_id: int
    in_flight: int

    def send(self, batch: Batch) -> None:
        """Hand the batch over. Exactly one ``batch_done`` or ``slot_lost`` follows for it."""

    def cancel(self, batch: Batch, index: int) -> None:
        """Tell the worker that nobody waits for item ``index`` any more. Never disturbs the other items."""


class SlotEvents(Protocol):
    """What an engine tells the core about its slots."""

    def slot_ready(self, slot: Slot) -> None:
        """A worker has loaded the model and can take batches."""

    def worker_loaded(self, worker_id: int, seconds: float, metrics: Sequence[Any]) -> None:
        """A worker has loaded the model in so many seconds; ``metrics`` is what its handler reported meanwhile."""

    def load_failed(self, metrics: Sequence[Any]) -> None:
        """A worker could not load the model; ``metrics`` is what its handler reported before it failed."""

    def slot_closing(self, slot: Slot) -> None:
        """No more batches to this slot; those in flight will still be answered."""

    def slot_lost(self, slot: Slot, started: Sequence[Batch], unstarted: Sequence[Batch], error: ServeError) -> None:
        """The worker is gone. ``started`` were (or may have been) computing, ``unstarted`` certainly were not."""

    def batch_done(
        self, slot: Slot, batch: Batch, results: Sequence[InferenceResponse | ServeError], report: BatchReport
    ) -> None:
        """One result per job of the batch, in the batch's order."""

    def item_chunk(self, batch: Batch, index: int, chunk: Chunk) -> None:
        """A piece of a streamed answer for one item."""

    def gave_up(self, error: ServeError) -> None:
        """The last worker failed for good: what is queued will not be served unless somebody scales."""


class Pool(Protocol):
    """The workers of one model version."""

    @property
    def target(self) -> int:
        """How many workers there should be."""

    @property
    def live(self) -> int:
        """How many workers serve, load, or will be started again: all but those that were given up or are ending."""

    async def scale(self, count: int) -> None:
        """Bring the number of workers to ``count`` and return when it is so.

        Workers that go are drained first. Raises :class:`mlserve.errors.WorkerStartError` when one cannot be loaded.
        """

    async def stop(self, grace: float) -> None:
        """Drain for at most ``grace`` seconds, then end every worker."""

    def describe(self) -> list[WorkerInfo]:
        """One entry per worker, by id."""


class Engine(Protocol):
    """Where workers come from."""

    def open(self, spec: ModelSpec, events: SlotEvents) -> Pool:
        """A pool with no workers yet."""

    def spares(self) -> list[SpareInfo]:
        """The processes that wait to become workers."""

    async def close(self) -> None:
        """Release what all pools share."""


class ModelSource(Protocol):
    """The model store, as the core sees it."""

    async def resolve(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        """Find, check and unpack a model.

        ``overrides`` holds explicit values by :class:`ModelSpec` field name, plus ``model_name``, ``handler`` and
        ``runtime``. Raises ``ModelNotFound``, ``ArchiveError``, ``DownloadError`` or ``InvalidInput``.
        """

    async def resolve_local(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        """As :meth:`resolve`, for the operator at start-up, who may also name directories and files anywhere."""

    def release(self, spec: ModelSpec) -> None:
        """Remove what :meth:`resolve` unpacked for this version."""

    def forget(self, spec: ModelSpec) -> None:
        """Remove the archive itself, if it was fetched from a URL for this version; any other is its owner's."""
