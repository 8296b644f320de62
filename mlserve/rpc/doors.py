"""The gRPC listeners of a server, on the event loop of everything else.

They close in the same three steps as the HTTP ones. ``refuse``: no new calls, and open streams take no more requests.
``drain``: the calls that there are end by themselves. ``cut``: end what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from mlserve.core.sequence import SequenceHeaders
from mlserve.core.service import InferenceService
from mlserve.log import AccessLog
from mlserve.protocols.actions import ManagementActions
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tls import pem_pair
from mlserve.protocols.tokens import TokenGuard
from mlserve.protocols.torchserve import HttpOptions
from mlserve.protocols.unix_sockets import make_way
from mlserve.rpc import extras
from mlserve.rpc.calls import Calls
from mlserve.rpc.generated import inference_pb2, management_pb2, open_inference_pb2
from mlserve.rpc.inference import InferenceApi
from mlserve.rpc.management import ManagementApi
from mlserve.rpc.open_inference import OpenInferenceApi
from mlserve.rpc.statuses import Statuses
from mlserve.settings import Settings
from mlserve.settings.tree import UNIX

FLUSH = 2.0  # seconds at shutdown for answers that are on their way
ENVELOPE = 1 << 16  # bytes that an answer may be larger than what the model returned: names, ids, a status
_INT32 = (1 << 31) - 1  # larger numbers of a setting do not fit gRPC's arguments


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
        self._servers: list[grpc.aio.Server] = []
        self._stops: list[asyncio.Future[None]] = []
        server = settings.server
        headers = SequenceHeaders(server.sequence_id_header, server.sequence_start_header, server.sequence_end_header)
        self._inference = InferenceApi(service, headers)

    async def open(self) -> None:
        """Bind both addresses. Raises OSError that names the API and the address that cannot be had."""
        settings = self._settings
        statuses = Statuses(HttpOptions.of(settings))
        ids = RequestIds(settings.server.echo_request_id)
        calls = Calls("inference", statuses.inference, ids, self._guard, self._access)
        services: list[tuple[Any, object]] = [
            (inference_pb2.DESCRIPTOR.services_by_name["InferenceAPIsService"], self._inference),
        ]
        if settings.server.open_inference:
            api = OpenInferenceApi(self._service, statuses)
            services.append((open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"], api))
        await self._serve("inference", calls, services)
        manage = Calls("management", statuses.management, ids, self._guard, self._access)
        actions = ManagementActions(self._service, settings)
        management = ManagementApi(actions, statuses, model_api=settings.models.model_api)
        service = management_pb2.DESCRIPTOR.services_by_name["ManagementAPIsService"]
        await self._serve("management", manage, [(service, management)])

    async def _serve(self, api: str, calls: Calls, services: Sequence[tuple[Any, object]]) -> None:
        server = grpc.aio.server(options=self._options(api))
        for service, servicer in services:
            server.add_generic_rpc_handlers((calls.handler(service, servicer),))
        extras.add(server, [service.full_name for service, _ in services], self._service)
        address = self._bind(server, f"grpc_{api}")
        await server.start()
        self._servers.append(server)
        self._on_bound(f"grpc_{api}", address)

    def _options(self, api: str) -> list[tuple[str, int]]:
        limits = self._settings.server
        options = [
            ("grpc.so_reuseport", 0),  # else a second server takes the same port, and half of the connections
            ("grpc.max_receive_message_length", min(limits.max_request_size, _INT32)),
            ("grpc.max_send_message_length", min(limits.max_response_size + ENVELOPE, _INT32)),
        ]
        for name in ("max_connection_age_ms", "max_connection_age_grace_ms"):
            value = getattr(self._settings.grpc, f"{api}_{name}")
            if value:
                options.append((f"grpc.{name}", min(value, _INT32)))  # which gRPC takes for unlimited
        return options

    def _bind(self, server: grpc.aio.Server, api: str) -> str:
        host, port = self._settings.server.address(api)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if host.startswith(UNIX):
            target = host
        _check_free(api, host, port)
        secure = api in self._settings.tls.apis
        try:
            if secure:
                chain, key = pem_pair(self._settings.tls)
                bound = server.add_secure_port(target, grpc.ssl_server_credentials([(key, chain)]))
            else:
                bound = server.add_insecure_port(target)
        except RuntimeError as error:
            raise OSError(f"the {api} API cannot listen on {target}: {error}") from None
        scheme = "grpcs" if secure else "grpc"
        return target if host.startswith(UNIX) else f"{scheme}://{target.rpartition(':')[0]}:{bound}"

    async def refuse(self) -> None:
        """Take no more calls, and no more requests in those that are open."""
        self._inference.close()
        grace = self._settings.server.shutdown_grace + FLUSH
        self._stops = [asyncio.ensure_future(server.stop(grace)) for server in self._servers]
        await asyncio.sleep(0)

    async def drain(self) -> None:
        """Until the calls that were accepted have ended."""
        if self._stops:
            await asyncio.wait(self._stops, timeout=FLUSH)

    async def cut(self) -> None:
        """End every call that is left."""
        for server in self._servers:
            with contextlib.suppress(Exception):
                await server.stop(None)
        await asyncio.gather(*self._stops, return_exceptions=True)


def _check_free(api: str, host: str, port: int) -> None:
    """gRPC says that it cannot bind, and not why; and it takes the socket file of a server that is running."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = host if host.startswith(UNIX) else f"{host}:{port}"
    try:
        if place == host:
            make_way(host.removeprefix(UNIX))
        else:
            socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise OSError(f"the {api} API cannot listen on {place}: {error.strerror or error}") from None
