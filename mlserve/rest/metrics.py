"""The metrics port: numbers are copied on the event loop, and made text when somebody scrapes.

A scrape of many models is some thousand lines of text, 40 ms of work that requests should not wait behind. So the event
loop only copies the counters, and a thread reads the machine and writes the text.

``metrics.families`` says whose names are used. TorchServe's text has a style of its own, see ``rest.exposition``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from mlserve import __version__
from mlserve.errors import MethodNotAllowed, RouteNotFound
from mlserve.protocols import openapi, openapi_torchserve
from mlserve.protocols.errors import json_body
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.ts_metrics import Family, TorchServeMetrics
from mlserve.rest import exposition
from mlserve.rest.collector import ServiceCollector, VersionSnapshot, snapshot
from mlserve.rest.json_errors import json_errors
from mlserve.rest.machine import Machine, MachineReading
from mlserve.rest.system import torchserve_readings

if TYPE_CHECKING:
    from mlserve.core.model import SpareInfo
    from mlserve.core.service import InferenceService
    from mlserve.settings import Settings
    from mlserve.settings.tree import MetricsSettings


def build_metrics_app(service: InferenceService, settings: Settings) -> web.Application:
    """The app for the metrics port. ``settings.metrics`` says which metrics there are, and in which form."""
    app = web.Application(middlewares=[json_errors(request_ids=RequestIds(settings.server.echo_request_id))])
    in_style = settings.server.http_style == "torchserve"
    document = openapi_torchserve.metrics_api() if in_style else openapi.metrics_api(__version__)
    app.router.add_route("*", "/{path:.*}", MetricsEndpoint(service, settings.metrics, document).answer)
    return app


class MetricsEndpoint:
    """Answers ``/metrics``, and as TorchServe does, whatever follows it and whatever the method.

    ``document`` describes the API: ``/api-description`` by any method, ``/`` by OPTIONS.
    """

    def __init__(self, service: InferenceService, settings: MetricsSettings, document: Mapping[str, Any]) -> None:
        self._document = document
        self._service = service
        self._settings = settings
        self._machine = Machine() if settings.system and settings.mode == "prometheus" else None
        observer = service.observer
        self._torchserve = observer if isinstance(observer, TorchServeMetrics) else None

    async def answer(self, request: web.Request) -> web.Response:
        """Any request of the metrics port."""
        segments = request.path.strip("/").split("/")
        if segments == ["api-description"] or (request.path == "/" and request.method == hdrs.METH_OPTIONS):
            return web.Response(body=json_body(self._document), content_type="application/json")
        if segments == [""]:
            raise MethodNotAllowed("")
        if segments[0] != "metrics":
            raise RouteNotFound("")
        body, content_type = await self.scrape(request.headers.get("Accept", ""), request.query.getall("name[]", []))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def scrape(self, accept: str = "", names: Collection[str] = ()) -> tuple[bytes, str]:
        """The text and its content type: OpenMetrics if ``accept`` asks for it, else Prometheus text.

        With TorchServe's families it is always Prometheus text; empty in mode ``log``, and in mode ``legacy`` three
        counters only.
        """
        mode = self._settings.mode
        if mode == "log":
            return b"", exposition.CONTENT_TYPE
        versions: list[VersionSnapshot] = []
        if self._settings.families != "torchserve" and mode == "prometheus":
            versions = [snapshot(handle) for handle in self._service.versions()]
        ready, spares = self._service.health().ready, self._service.spares()
        if self._torchserve is None:
            return await asyncio.to_thread(self._own_text, versions, ready, spares, accept, names)
        families = self._torchserve.families()
        return await asyncio.to_thread(self._torchserve_text, families, versions, ready, spares, names)

    def _own_text(
        self,
        versions: list[VersionSnapshot],
        ready: bool,
        spares: Sequence[SpareInfo],
        accept: str,
        names: Collection[str],
    ) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        handlers = self._settings.auto_detect  # nothing declares metrics for these families
        collector: Any = ServiceCollector(
            versions,
            ready=ready,
            machine=self._read(),
            names=names,
            handlers=handlers,
            spares=spares,
            intake=self._service.intake,
        )
        return encode(collector), content_type

    def _torchserve_text(
        self,
        families: Sequence[Family],
        versions: list[VersionSnapshot],
        ready: bool,
        spares: Sequence[SpareInfo],
        names: Collection[str],
    ) -> tuple[bytes, str]:
        machine = self._read()
        if machine is not None and self._torchserve is not None and not self._settings.system_command:
            exposition.readings(families, torchserve_readings(machine, self._torchserve.hostname))
        shown = list(exposition.torchserve_families(families))
        if self._settings.families == "both" and self._settings.mode == "prometheus":
            own = ServiceCollector(
                versions, ready=ready, machine=machine, handlers=False, spares=spares, intake=self._service.intake
            )
            shown += exposition.own_families(own.collect())
        return exposition.write(shown, names), exposition.CONTENT_TYPE

    def _read(self) -> MachineReading | None:
        return self._machine.read() if self._machine is not None else None
