"""Standard services that other tools speak, where the packages for them are installed (``mlserve[grpc]``).

``grpc.health.v1.Health`` is what Kubernetes and load balancers ask, reflection what grpcurl reads the definitions from.
Neither asks for a token: the one tells what ``/ping`` tells, the other what is public.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from mlserve.core.service import InferenceService

WATCH = 1.0  # seconds between two looks at the state that somebody watches


def add(server: grpc.aio.Server, services: Sequence[str], service: InferenceService) -> None:
    """Add what is installed. ``services`` are the full names of those that the server has."""
    names = list(services)
    try:
        from grpc_health.v1 import health_pb2_grpc
    except ImportError:
        pass
    else:
        health_pb2_grpc.add_HealthServicer_to_server(_Health(service, frozenset(services)), server)
        names.append("grpc.health.v1.Health")
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError:
        return
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)


class _Health:
    """Ready or not, of the server as a whole; its services share that state."""

    def __init__(self, service: InferenceService, names: frozenset[str]) -> None:
        from grpc_health.v1 import health_pb2

        self._pb: Any = health_pb2
        self._service = service
        self._names = names

    def _status(self, name: str) -> Any:
        if name and name not in self._names:
            return None
        states = self._pb.HealthCheckResponse
        return states.SERVING if self._service.health().ready else states.NOT_SERVING

    async def Check(self, request: Any, context: Any) -> Any:
        """The state now."""
        status = self._status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no service {request.service[:80]!r} here")
        return self._pb.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The state now and at each change."""
        said = None
        while True:
            status = self._status(request.service)
            if status is None:
                status = self._pb.HealthCheckResponse.SERVICE_UNKNOWN
            if status != said:
                said = status
                yield self._pb.HealthCheckResponse(status=status)
            await asyncio.sleep(WATCH)

    async def List(self, request: Any, context: Any) -> Any:
        """Every service with its state."""
        states = {name: self._pb.HealthCheckResponse(status=self._status(name)) for name in ("", *self._names)}
        return self._pb.HealthListResponse(statuses=states)
