"""Hot inference routes as one dict from URL path to handle, rebuilt whenever a model comes, goes or is switched."""

from __future__ import annotations

from collections.abc import Callable

from mlserve.core.registry import VersionHandle
from mlserve.core.service import InferenceService
from mlserve.protocols.inference_routes import EXPLAIN_FALSE
from mlserve.protocols.torchserve import Answer


class Route:
    """Where a URL path leads; the rest is what :class:`mlserve.protocols.inference_routes.InferenceRoute` has.

    Where it leads to no model, ``tell`` gives the answer.
    """

    __slots__ = ("explain", "handle", "headers", "tell", "url_path", "version")

    def __init__(
        self,
        handle: VersionHandle | None,
        explain: bool,
        version: str = "",
        url_path: str | None = "",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        tell: Callable[[], Answer] | None = None,
    ) -> None:
        self.handle = handle
        self.explain = explain
        self.version = version
        self.url_path = url_path
        self.headers = headers
        self.tell = tell


class RouteTable:
    """``table`` is replaced whole on every change, so a reader never sees half a switch."""

    def __init__(self, service: InferenceService) -> None:
        self.table: dict[bytes, Route] = {}
        self._service = service
        service.add_listener(self._rebuild)

    def _rebuild(self) -> None:
        table: dict[bytes, Route] = {}
        for name, model in self._service.registry:
            for verb, explain in (("predictions", False), ("explanations", True)):
                base = f"/{verb}/{name}"
                table[base.encode()] = Route(model.versions[model.default], explain)
                for version, handle in model.versions.items():
                    # A version may hold any character; one that a URL would escape is served by the slower door.
                    table[f"{base}/{version}".encode()] = Route(handle, explain, version)
            kserve = Route(model.versions[model.default], False, url_path=None, headers=EXPLAIN_FALSE)
            table[f"/v1/models/{name}:predict".encode()] = table[f"/v2/models/{name}/infer".encode()] = kserve
        self.table = table
