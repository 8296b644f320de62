"""Wire metadata -> what a handler sees: the context of the model, and the requests of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlserve.handler import Context, RequestInfo
from mlserve.wire.payload import ItemMeta, Load, ReceivedItem
from mlserve.worker.caching_metric import current
from mlserve.worker.metrics import Metrics


def make_context(load: Load) -> Context:
    """The context a handler is initialized with. Its metrics become this process's."""
    metrics = Metrics(load.metrics, load.model_name)
    context = Context(
        load.model_name,
        load.model_dir,
        load.manifest,
        load.batch_size,
        load.gpu_id,
        load.config,
        metrics,
        limit_max_image_pixels=load.limit_max_image_pixels,
    )
    context.header_key_sequence_id = load.sequence_id_header
    context.header_key_sequence_start = load.sequence_start_header
    context.header_key_sequence_end = load.sequence_end_header
    context.report_times = load.handler_times
    context.own_files = load.own_files
    context.handler_threads = load.handler_threads
    metrics.follow(context)
    current.sink = metrics
    return context


class WireRequest(RequestInfo):
    """A request of the current batch; its headers are put together when a handler first asks."""

    __slots__ = ("_item",)

    def __init__(self, item: ItemMeta | ReceivedItem) -> None:
        self.request_id = item.request_id
        self._item = item
        self._headers = None

    @property
    def headers(self) -> dict[str, Any]:
        """Each part's content type under its name, then client headers in the client's spelling, then what the server
        adds. The later one has the name: a gRPC client asks for a header by an entry of the same name in its input."""
        if self._headers is None:
            item = self._item
            headers: dict[str, Any] = {part.name: {"content-type": part.content_type} for part in item.parts}
            headers.update((name.decode("latin-1"), value.decode("latin-1")) for name, value in item.headers)
            if item.url_path is not None:
                headers["url_path"] = item.url_path
            if item.explain or item.url_path is not None:
                headers["explain"] = "True" if item.explain else "False"
            self._headers = headers
        return self._headers


class WireRequests(Sequence[RequestInfo]):
    """The requests of a batch, each made when somebody first asks for it: most handlers never do."""

    __slots__ = ("_items", "_made")

    def __init__(self, items: Sequence[ItemMeta | ReceivedItem]) -> None:
        self._items = items
        self._made: list[RequestInfo] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if self._made is None:
            self._made = [WireRequest(item) for item in self._items]
        return self._made[index]
