"""Standard services that other tools speak, where the packages for them are installed (``mlserve[grpc]``).

``grpc.health.v1.Health`` is what Kubernetes and load balancers ask, reflection what grpcurl reads the definitions from.
Neither asks for a token: the one tells what ``/ping`` tells, the other what is public. Neither is in the access log.
Reflection's servicer imports ``grpc``, which nothing else in the server does, so that is left to the first call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mlserve.core.service import InferenceService
from mlserve.protocols.request_ids import RequestIds
from mlserve.rpc.calls import Call, Calls, Method
from mlserve.rpc.codes import Code
from mlserve.rpc.statuses import Failures
from mlserve.rpc.stream import Refused

WATCH = 1.0  # seconds between two looks at the state that somebody watches


def methods(services: Sequence[str], service: InferenceService, failures: Failures) -> dict[str, Method]:
    """Those of what is installed, by path. ``services`` are the full names of those that the server has."""
    names = list(services)
    found: dict[str, Method] = {}
    calls = Calls("", failures, RequestIds(), None, None)
    try:
        from grpc_health.v1 import health_pb2
    except ImportError:
        pass
    else:
        health = health_pb2.DESCRIPTOR.services_by_name["Health"]
        found |= calls.methods(health, _Health(service, frozenset(services)))
        names.append(health.full_name)
    try:
        from grpc_reflection.v1alpha import reflection_pb2
    except ImportError:
        return found
    reflection = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    return found | calls.methods(reflection, _Reflection([*names, reflection.full_name]))


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

    async def check(self, request: Any, call: Call) -> Any:
        """The state now."""
        status = self._status(request.service)
        if status is None:
            raise Refused(Code.NOT_FOUND, f"There is no service {request.service[:80]!r} here")
        return self._pb.HealthCheckResponse(status=status)

    async def watch(self, request: Any, call: Call) -> AsyncIterator[Any]:
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

    async def list(self, request: Any, call: Call) -> Any:
        """Every service with its state."""
        states = {name: self._pb.HealthCheckResponse(status=self._status(name)) for name in ("", *self._names)}
        return self._pb.HealthListResponse(statuses=states)


class _Reflection:
    """The definitions of what the server has."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    async def server_reflection_info(self, requests: Any, call: Call) -> AsyncIterator[Any]:
        """An answer for each request."""
        from grpc_reflection.v1alpha.reflection import aio

        async for answer in aio.ReflectionServicer(self._names).ServerReflectionInfo(requests, None):
            yield answer
