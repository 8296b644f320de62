"""The gRPC listeners of a server, on the event loop of everything else.

They close in the same three steps as the HTTP ones. ``refuse``: no new calls, and open streams take no more requests.
``drain``: the calls that there are end by themselves. ``cut``: end what is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mlserve.core.sequence import SequenceHeaders
from mlserve.core.service import InferenceService
from mlserve.log import AccessLog
from mlserve.protocols.actions import ManagementActions
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tls import server_context
from mlserve.protocols.tokens import TokenGuard
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rpc import extras
from mlserve.rpc.calls import Calls, Method
from mlserve.rpc.generated import inference_pb2, management_pb2, open_inference_pb2
from mlserve.rpc.inference import InferenceApi
from mlserve.rpc.management import ManagementApi
from mlserve.rpc.open_inference import OpenInferenceApi
from mlserve.rpc.predictions import by_callbacks
from mlserve.rpc.server import RpcServer
from mlserve.rpc.shared import Shared
from mlserve.rpc.statuses import Statuses
from mlserve.settings import Settings
from mlserve.settings.tree import UNIX

FLUSH = 2.0  # seconds at shutdown for answers that are on their way


class RpcDoors:
    """The gRPC inference and management APIs on their ports. ``on_bound`` is told each one's name and URL."""

    def __init__(
        self,
        settings: Settings,
        service: InferenceService,
        guard: TokenGuard | None,
        access: AccessLog | None,
        on_bound: Callable[[str, str], object],
    ) -> None:
        self._settings = settings
        self._service = service
        self._guard = guard
        self._access = access
        self._on_bound = on_bound
        self._servers: list[RpcServer] = []
        server = settings.server
        headers = SequenceHeaders(server.sequence_id_header, server.sequence_start_header, server.sequence_end_header)
        self._inference = InferenceApi(service, headers)

    async def open(self) -> None:
        """Bind both addresses. Raises OSError that names the API and the address that cannot be had."""
        settings = self._settings
        statuses = Statuses(HttpOptions.of(settings))
        ids = RequestIds(settings.server.echo_request_id)
        calls = Calls("inference", statuses.inference, ids, self._guard, self._access)
        service = inference_pb2.DESCRIPTOR.services_by_name["InferenceAPIsService"]
        methods = calls.methods(service, self._inference)
        by_callbacks(self._service, self._inference, methods[f"/{service.full_name}/Predictions"])
        names = [service.full_name]
        if settings.server.open_inference:
            service = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
            methods |= calls.methods(service, OpenInferenceApi(self._service, statuses))
            names.append(service.full_name)
        await self._serve("inference", methods | extras.methods(names, self._service, statuses.inference))
        manage = Calls("management", statuses.management, ids, self._guard, self._access)
        actions = ManagementActions(self._service, settings)
        management = ManagementApi(actions, statuses, model_api=settings.models.model_api)
        service = management_pb2.DESCRIPTOR.services_by_name["ManagementAPIsService"]
        methods = manage.methods(service, management)
        names = [service.full_name]
        await self._serve("management", methods | extras.methods(names, self._service, statuses.management))

    async def _serve(self, api: str, methods: dict[str, Method]) -> None:
        settings = self._settings
        limits, ages = settings.server, settings.grpc
        shared = Shared(
            methods,
            max_receive=limits.max_request_size,
            max_headers=limits.max_header_size,
            patience=limits.header_timeout,
            intake=self._service.intake,
            name=f"gRPC {api}",
        )
        age = getattr(ages, f"{api}_max_connection_age_ms") / 1000
        grace = getattr(ages, f"{api}_max_connection_age_grace_ms") / 1000
        server = RpcServer(shared, age=age, grace=grace)
        self._servers.append(server)
        name = f"grpc_{api}"
        host, port = limits.address(name)
        context = server_context(settings.tls) if name in settings.tls.apis else None
        place = host if host.startswith(UNIX) else f"{host}:{port}"
        try:
            bound = await server.open(host, port, context)
        except OSError as error:
            raise OSError(f"the {name} API cannot listen on {place}: {error.strerror or error}") from None
        shown = f"[{host}]" if ":" in host else host
        scheme = "grpc" if context is None else "grpcs"
        self._on_bound(name, host if host.startswith(UNIX) else f"{scheme}://{shown}:{bound}")

    async def refuse(self) -> None:
        """Take no more calls, and no more requests in those that are open."""
        self._inference.close()
        for server in self._servers:
            server.refuse()

    async def drain(self) -> None:
        """Until the calls that were accepted have ended."""
        await asyncio.gather(*(server.drain(FLUSH) for server in self._servers))

    async def cut(self) -> None:
        """End every call that is left."""
        for server in self._servers:
            server.cut()
