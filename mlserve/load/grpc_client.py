"""Calls over gRPC: messages are made once, and sent and received as bytes.

grpcio costs far more than the HTTP client here (some 300 microseconds of processor time for a call), so a fast server's
figures over gRPC are soon the client's: look at the client's share of a core before they are compared.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # failed handshakes are counted here, not printed one by one

import grpc
import grpc.aio

from mlserve.errors import SettingError
from mlserve.load.grpc_messages import same_message, shown
from mlserve.load.slots import EXAMPLE_LENGTH, REFUSED, TIMEOUT, UNTRUSTED, WRONG_ANSWER, Done
from mlserve.load.target import STREAMING, UNIX, Target, host_port

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS_PER_CHANNEL = 32  # a server allows about 100 streams on a connection; one connection is one thread of it
_OWN = ("content-length", "content-type", "te", "user-agent")  # given ones are left out
_NAME, _VALUE = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[ -~]*")
_NO_CONNECTION = ("failed to connect", "connection refused", "no such file")


class GrpcClient:
    """Slots that share connections. Raises :class:`SettingError` for certificates that cannot be used."""

    def __init__(self, target: Target, done: Done) -> None:
        self.target = target
        self.done = done
        self.streams = target.path in STREAMING
        self.metadata = metadata_of(target)
        self.loop = asyncio.get_running_loop()
        self._credentials = _credentials(target)
        self._channels: list[Any] = []
        self._methods: list[Callable[..., Any]] = []
        self._slots = 0
        self._open()

    def _open(self) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),  # else every channel is the same connection
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        address = self.target.address
        place = address if address.startswith(UNIX) else _place(address)
        channel = (
            grpc.aio.insecure_channel(place, options)
            if self._credentials is None
            else grpc.aio.secure_channel(place, self._credentials, options)
        )
        self._channels.append(channel)
        kind = channel.unary_stream if self.streams else channel.unary_unary
        self._methods.append(kind(self.target.path))

    def slot(self) -> GrpcSlot:
        """A new slot, on a new connection where the last one has enough."""
        if self._slots >= CALLS_PER_CHANNEL * len(self._channels):
            self._open()
        self._slots += 1
        return GrpcSlot(self, self._methods[-1])

    async def close(self) -> None:
        """Close the connections; calls under way are cancelled."""
        for channel in self._channels:
            await channel.close()


class GrpcSlot:
    """One call at a time."""

    __slots__ = ("_client", "_method", "_task", "busy", "detail", "intended", "sent")

    def __init__(self, client: GrpcClient, method: Callable[..., Any]) -> None:
        self._client, self._method = client, method
        self._task: asyncio.Task[None] | None = None
        self.intended = self.sent = 0.0
        self.busy = False
        self.detail = ""

    def send(self, number: int) -> None:
        """Begin the call."""
        self.busy = True
        self.sent = perf_counter()
        self._task = self._client.loop.create_task(self._call(number))

    def abort(self, kind: str) -> None:
        """Cancel the call."""
        if self._task is not None:
            self._task.cancel()
        self._finish(self._task, kind, 0.0, 0, False)

    def close(self) -> None:
        """Cancel without calling ``done``."""
        self.busy = False
        if self._task is not None:
            self._task.cancel()

    async def _call(self, number: int) -> None:
        target, task = self._client.target, self._task
        payload = target.payloads[number]
        first, pieces = 0.0, []
        call = self._method(payload.body, timeout=target.timeout, metadata=self._client.metadata)
        try:
            if self._client.streams:
                async for piece in call:
                    first = first or perf_counter()
                    pieces.append(piece)
            else:
                pieces.append(await call)
        except grpc.RpcError as error:
            self._failed(task, error)
            return
        size = sum(map(len, pieces))
        kind = ""
        if payload.expect is not None and not same_message(pieces, payload.expect, target.path):
            kind, self.detail = WRONG_ANSWER, shown(pieces, target.path)
        self._finish(task, kind, first, size, len(pieces) > 1)

    def _failed(self, task: object, error: Any) -> None:
        code, text = error.code().name, " ".join((error.details() or "").split())
        self.detail = text[:EXAMPLE_LENGTH]
        kind = f"gRPC {code}"
        if code == "DEADLINE_EXCEEDED":
            kind = TIMEOUT
        elif "CERTIFICATE_VERIFY_FAILED" in text:
            kind, self.detail = UNTRUSTED, text.rpartition("CERTIFICATE_VERIFY_FAILED: ")[2].partition(": OK")[0]
        elif code == "UNAVAILABLE" and any(words in text.lower() for words in _NO_CONNECTION):
            kind = REFUSED
        self._finish(task, kind, 0.0, 0, False)

    def _finish(self, task: object, kind: str, first: float, size: int, pieces: bool) -> None:
        if self._task is not task or not self.busy:
            return  # given up before
        end = perf_counter()
        self.busy = False
        self._task = None
        self._client.done(self, kind, first or end, end, size, pieces)


def _place(address: str) -> str:
    host, port = host_port(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def metadata_of(target: Target) -> tuple[tuple[str, str], ...]:
    """The headers of a call. Raises :class:`SettingError` for those that grpcio leaves out or fails on."""
    for name, value in target.headers:
        if name.lower() in _OWN or name.lower().startswith("grpc-"):
            raise SettingError(f"the header {name} is made by gRPC itself and cannot be given")
        if not _NAME.fullmatch(name.lower()) or name.lower().endswith("-bin") or not _VALUE.fullmatch(value):
            raise SettingError(f"the header {name!r} with {value!r} cannot be sent over gRPC: text in ASCII can")
    return tuple((name.lower(), value) for name, value in target.headers)


def _credentials(target: Target) -> grpc.ChannelCredentials | None:
    if target.scheme != "grpcs":
        return None
    if target.insecure:
        raise SettingError("gRPC has no way to trust any certificate; name the server's own with --cacert FILE")
    try:
        return grpc.ssl_channel_credentials(Path(target.cacert).read_bytes() if target.cacert else None)
    except OSError as error:
        raise SettingError(f"cacert: {target.cacert}: {error.strerror or error}") from None
