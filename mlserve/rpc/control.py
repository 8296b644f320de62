"""The frames that carry no call: settings, windows, pings, and streams that the client ends (RFC 9113, 6.4 to 6.9)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlserve.rpc import frames
from mlserve.rpc.frames import ACK, MAX_FRAME, MAX_WINDOW, ConnectionFault, Error

if TYPE_CHECKING:
    from mlserve.rpc.connection import Connection

LARGEST = 1 << 20  # bytes of a frame of ours, so that others have their turn
RESIZES, RESIZE_EVERY = 100, 0.1  # changes of the windows at once, and then one in so many seconds


def on_reset(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """The client ends a stream."""
    if len(payload) != 4:
        raise ConnectionFault(Error.FRAME_SIZE_ERROR, "RST_STREAM of an odd length")
    if not number or (number > connection.last and not connection.leaving):
        raise ConnectionFault(Error.PROTOCOL_ERROR, "RST_STREAM of a stream that was not begun")
    stream = connection.streams.get(number)
    if stream is not None:
        stream.drop()


def on_settings(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """What the client wants, or that it has seen what we want."""
    if number or (flags & ACK and payload):
        raise ConnectionFault(Error.PROTOCOL_ERROR, "SETTINGS of a stream, or in an answer to ours")
    if flags & ACK:
        return
    window = connection.initial_window
    for setting, value in frames.read_settings(payload):
        if setting == frames.INITIAL_WINDOW:
            if value > MAX_WINDOW:
                raise ConnectionFault(Error.FLOW_CONTROL_ERROR, "a window that is too large")
            window = value
        elif setting == frames.MAX_FRAME_SIZE:
            if not MAX_FRAME <= value < 1 << 24:
                raise ConnectionFault(Error.PROTOCOL_ERROR, "a frame size that is not allowed")
            connection.max_frame = min(value, LARGEST)
    connection.write(frames.frame(frames.SETTINGS, ACK, 0))
    if window != connection.initial_window:
        _resize(connection, window)


def _resize(connection: Connection, window: int) -> None:
    """Each stream's window changes, so 15 bytes cost 3 ms where there are 10,000. gRPC's libraries change it with what
    they measure of the network, some ten times in all."""
    now = time.monotonic()
    connection.resized = max(connection.resized, now - RESIZES * RESIZE_EVERY) + RESIZE_EVERY
    if connection.resized > now:
        raise ConnectionFault(Error.ENHANCE_YOUR_CALM, "the windows are changed too often")
    more, connection.initial_window = window - connection.initial_window, window
    for stream in list(connection.streams.values()):
        stream.window += more
        if stream.window > MAX_WINDOW:
            raise ConnectionFault(Error.FLOW_CONTROL_ERROR, "a window that is too large")
        if more > 0:
            stream.pump()


def on_ping(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """Answer it."""
    if len(payload) != 8:
        raise ConnectionFault(Error.FRAME_SIZE_ERROR, "PING of an odd length")
    if number:
        raise ConnectionFault(Error.PROTOCOL_ERROR, "PING of a stream")
    if not flags & ACK:
        connection.write(frames.frame(frames.PING, ACK, 0, payload))


def on_window(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """The client takes more."""
    if len(payload) != 4:
        raise ConnectionFault(Error.FRAME_SIZE_ERROR, "WINDOW_UPDATE of an odd length")
    more = int.from_bytes(payload, "big") & MAX_WINDOW
    stream = connection.streams.get(number)
    if not number:
        connection.window += more
        if not more or connection.window > MAX_WINDOW:
            raise ConnectionFault(Error.FLOW_CONTROL_ERROR if more else Error.PROTOCOL_ERROR, "a wrong window")
        connection.pump()
    elif stream is not None:
        stream.window += more
        if not more or stream.window > MAX_WINDOW:
            connection.end_stream(stream, Error.FLOW_CONTROL_ERROR if more else Error.PROTOCOL_ERROR)
        else:
            stream.pump()
    elif number > connection.last and not connection.leaving:
        raise ConnectionFault(Error.PROTOCOL_ERROR, "WINDOW_UPDATE of a stream that was not begun")


def on_push(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """Only servers may."""
    raise ConnectionFault(Error.PROTOCOL_ERROR, "clients push nothing")


FRAMES: dict[int, Callable[[Connection, int, int, bytes], None]] = {
    frames.RST_STREAM: on_reset,
    frames.SETTINGS: on_settings,
    frames.PUSH_PROMISE: on_push,
    frames.PING: on_ping,
    frames.WINDOW_UPDATE: on_window,
}
"""By kind. Others, and PRIORITY, which means nothing any more, are ignored; a client does not send GOAWAY for calls of
its own."""
