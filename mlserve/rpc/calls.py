"""What every call has in common: the token, the end with a status, the line in the access log.

A servicer is a plain object with one method per RPC, named in snake case. It raises ``ServeError`` and knows nothing of
tokens and logs; which method streams what is read from the service's descriptor, so that it cannot disagree with the
definition.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from mlserve.core.job import Job
from mlserve.errors import ServeError
from mlserve.log import AccessLog
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tokens import TokenGuard
from mlserve.rpc.statuses import Failure, Failures, unexpected

log = logging.getLogger(__name__)

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Call:
    """One RPC while it is served. ``model`` and ``version`` are what the client named."""

    __slots__ = ("code", "context", "failures", "job", "model", "path", "request_id", "size", "started", "version")

    def __init__(self, context: Any, path: str, failures: Failures, request_id: str) -> None:
        self.context = context
        self.path = path
        self.failures = failures
        self.request_id = request_id
        self.model = ""
        self.version = ""
        self.job: Job | None = None
        self.size = 0
        self.code = grpc.StatusCode.OK
        self.started = time.monotonic()

    def timeout(self) -> float:
        """Seconds until the client's deadline; 0 if it has none."""
        remaining = self.context.time_remaining()
        return 0.0 if remaining is None else max(0.001, float(remaining))


class Calls:
    """Makes gRPC handlers of a servicer's methods. ``api`` says which token callers need."""

    def __init__(
        self, api: str, failures: Failures, ids: RequestIds, guard: TokenGuard | None, access: AccessLog | None
    ) -> None:
        self._api = api
        self._failures = failures
        self._ids = ids
        self._guard = guard
        self._access = access

    def handler(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """All methods of a service."""
        methods = {method.name: self._method(method, servicer) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _method(self, method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler:
        behaviour = getattr(servicer, _CAPITAL.sub("_", method.name).lower())
        path = f"{method.containing_service.full_name}/{method.name}"
        read = GetMessageClass(method.input_type).FromString
        write = GetMessageClass(method.output_type).SerializeToString
        if not method.server_streaming:
            return grpc.unary_unary_rpc_method_handler(self._unary(behaviour, path), read, write)
        streaming = grpc.stream_stream_rpc_method_handler if method.client_streaming else _unary_stream
        return streaming(self._stream(behaviour, path), read, write)

    def _unary(self, behaviour: Callable[[Any, Call], Awaitable[Message]], path: str) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            call = self._begin(context, path)

            async def work() -> Message:
                response = await behaviour(request, call)
                call.size = response.ByteSize()
                return response

            return await self._serve(call, work())

        return serve

    def _stream(self, behaviour: Callable[[Any, Call], AsyncIterator[Message]], path: str) -> Any:
        async def serve(request: Any, context: Any) -> None:
            call = self._begin(context, path)

            async def work() -> None:
                async with aclosing(behaviour(request, call)) as responses:  # type: ignore[type-var]  # a generator
                    async for response in responses:
                        call.size += response.ByteSize()
                        await context.write(response)

            await self._serve(call, work())

        return serve

    def _begin(self, context: Any, path: str) -> Call:
        return Call(context, path, self._failures, self._ids(_metadata(context, "x-request-id")))

    async def _serve(self, call: Call, work: Any) -> Any:
        failure: Failure | None = None
        try:
            if self._guard is not None:
                self._guard.check(self._api, _metadata(call.context, "authorization"))
            return await work
        except ServeError as error:
            failure = call.failures(error, call.model, call.version)
        except asyncio.CancelledError:
            call.code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            if call.context.cancelled():  # what a write says when the client has gone
                failure = Failure(grpc.StatusCode.CANCELLED, "The client went away")
            else:
                log.exception("%s failed", call.path)
                failure = unexpected()
        finally:
            work.close()  # of a coroutine that was never started
            if failure is not None:
                call.code = failure.code
            self._log(call)
        await call.context.abort(failure.code, failure.details)

    def _log(self, call: Call) -> None:
        if self._access is not None:
            self._access.line(
                _client(call.context.peer()),
                "gRPC",
                call.path,
                call.code.value[0],
                call.size,
                time.monotonic() - call.started,
                call.request_id,
                call.job.timings if call.job is not None else None,
            )


def _unary_stream(behaviour: Any, read: Any, write: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_stream_rpc_method_handler(behaviour, read, write)


def _metadata(context: Any, name: str) -> bytes:
    """The last value of a key that the client sent, as gRPC's own libraries take it; empty if there is none."""
    for key, value in reversed(context.invocation_metadata() or ()):
        if key == name:
            return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    return b""


def _client(peer: str) -> str:
    """``ipv4:127.0.0.1:5`` or ``ipv6:%5B::1%5D:5`` as the other doors write an address."""
    kind, _, address = peer.partition(":")
    return "unix" if kind == "unix" else unquote(address).replace("[", "").replace("]", "")
