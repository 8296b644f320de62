"""What every call has in common: the token, the end with a status, the line in the access log.

A servicer is a plain object with one method per RPC, named in snake case. It raises ``ServeError`` and knows nothing of
tokens and logs; which method streams what is read from the service's descriptor, so that it cannot disagree with the
definition. Each call is a task; predictions with one answer, which are most of all calls, do without
(:mod:`mlserve.rpc.predictions`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from mlserve.core.job import Job
from mlserve.errors import ServeError
from mlserve.log import AccessLog
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tokens import TokenGuard
from mlserve.rpc.codes import Code
from mlserve.rpc.frames import Error
from mlserve.rpc.statuses import Failure, Failures, unexpected
from mlserve.rpc.stream import Bytes, Refused, Stream

log = logging.getLogger(__name__)

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Calls:
    """What the calls of one listener share. ``api`` says which token callers need.

    Without an access log, or a guard, there is none for these calls.
    """

    def __init__(
        self, api: str, failures: Failures, ids: RequestIds, guard: TokenGuard | None, access: AccessLog | None
    ) -> None:
        self.failures = failures
        self.ids = ids
        self._api = api
        self._guard = guard
        self._access = access

    def methods(self, service: ServiceDescriptor, servicer: object) -> dict[str, Method]:
        """All methods of a service by their path."""
        found = [Method(self, method, servicer) for method in service.methods]
        return {f"/{method.path}": method for method in found}

    def check(self, authorization: bytes) -> None:
        """Raises ``InvalidToken``."""
        if self._guard is not None:
            self._guard.check(self._api, authorization)

    def note(self, call: Call) -> None:
        """The line in the access log of a call that has ended."""
        access = self._access
        if access is None or not access.enabled:
            return
        stream, job = call.stream, call.job
        head = stream.head
        origin = head.origin
        if origin is None:
            origin = head.origin = access.origin(stream.connection.client, "gRPC", head.path)
        report = job.report if job is not None else None
        if job is None or report is None:
            access.note(origin, int(call.code), call.size, call.started, time.monotonic(), call.request_id.encode())
        else:
            queue, ended = job.sent - job.arrived + report.waited, job.ended or time.monotonic()
            access.note(origin, int(call.code), call.size, call.started, ended, call.request_id.encode(), queue, report)


class Call:
    """One RPC while it is served. ``model`` and ``version`` are what the client named."""

    model = ""
    version = ""
    job: Job | None = None
    size = 0
    code = Code.OK

    def __init__(self, calls: Calls, stream: Stream) -> None:
        self.calls = calls
        self.stream = stream
        self.failures = calls.failures
        self.request_id = calls.ids(stream.head.request_id)
        self.started = time.monotonic()

    def timeout(self) -> float:
        """Seconds until the client's deadline; 0 if it has none."""
        timeout = self.stream.head.timeout
        return max(0.001, timeout - (time.monotonic() - self.started)) if timeout else 0.0

    def fail(self, error: BaseException) -> None:
        """End the call with the status of what went wrong."""
        if isinstance(error, ServeError):
            failure = self.failures(error, self.model, self.version)
        elif isinstance(error, Refused):
            failure = Failure(error.code, error.message)
        else:
            log.error("%s failed", self.stream.head.path, exc_info=error)
            failure = unexpected()
        self.code = failure.code
        self.stream.finish(failure.code, failure.details)


class Method:
    """One RPC of a service, and what serves it. ``submit`` is there if a call of it needs no task."""

    def __init__(self, calls: Calls, method: MethodDescriptor, servicer: object) -> None:
        self.calls = calls
        self.path = f"{method.containing_service.full_name}/{method.name}"
        self.behaviour: Any = getattr(servicer, _CAPITAL.sub("_", method.name).lower())
        self.client_streaming: bool = method.client_streaming
        self.server_streaming: bool = method.server_streaming
        self.submit: Callable[[Calls, Stream, Any], object] | None = None
        self._read: Any = GetMessageClass(method.input_type).FromString

    def read(self, message: Bytes) -> Any:
        """A request. Raises ``Refused``."""
        try:
            return self._read(message)
        except DecodeError:
            raise Refused(Code.INTERNAL, "Exception deserializing request!") from None

    def open(self, stream: Stream) -> None:
        """Serve a call whose client streams."""
        Running(self, stream, None)

    def serve(self, stream: Stream, message: Bytes) -> None:
        """Serve a call with one request."""
        if self.submit is not None:
            self.submit(self.calls, stream, message)
        else:
            Running(self, stream, message)

    async def requests(self, stream: Stream) -> AsyncIterator[Any]:
        """What the client streams, to its end."""
        while not stream.over:
            message = stream.take()
            if message is not None:
                try:
                    yield self.read(message)
                except Refused as refused:
                    stream.refuse(refused)
            elif stream.half_closed:
                return
            else:
                stream.wake = asyncio.get_running_loop().create_future()
                await stream.wake


class Running:
    """A call that a task serves: until its answer, its client's leaving, or its deadline."""

    __slots__ = ("_call", "_method", "_task", "_timer")

    def __init__(self, method: Method, stream: Stream, message: Bytes | None) -> None:
        self._method = method
        self._call = Call(method.calls, stream)
        loop = asyncio.get_running_loop()
        if message is None:
            stream.stream_messages()
        stream.owner = self
        timeout = stream.head.timeout
        self._timer = loop.call_later(timeout, self._expire) if timeout else None
        self._task = loop.create_task(self._run(message))

    def gone(self) -> None:
        """The client waits for it no more."""
        self._task.cancel()

    def _expire(self) -> None:
        self._call.code = Code.DEADLINE_EXCEEDED
        stream = self._call.stream
        if stream.behind:  # the status would wait behind what the client does not take
            stream.connection.end_stream(stream, Error.CANCEL)
        else:
            stream.finish(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        self._task.cancel()

    async def _run(self, message: Bytes | None) -> None:
        call = self._call
        try:
            call.calls.check(call.stream.head.authorization)
            await self._serve(call, message)
        except asyncio.CancelledError:
            if call.code is Code.OK:
                call.code = Code.CANCELLED
        except Exception as error:
            call.fail(error)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            call.calls.note(call)

    async def _serve(self, call: Call, message: Bytes | None) -> None:
        method, stream = self._method, call.stream
        request = method.requests(stream) if message is None else method.read(message)
        if not method.server_streaming:
            answer = (await method.behaviour(request, call)).SerializeToString()
            call.size = len(answer)
            stream.answer(answer)
            return
        async with aclosing(method.behaviour(request, call)) as responses:
            async for response in responses:
                piece = response.SerializeToString()
                call.size += len(piece)
                stream.send(piece)
                await stream.drain()
        stream.finish()
