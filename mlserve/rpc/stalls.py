"""Clients that stall: in the middle of a frame or a request, or in reading what they are sent.

What they began is kept for them, so it ends when nothing has moved for as long as ``server.header_timeout`` says, as
over HTTP. A connection that merely is idle, a call whose client streams and has nothing to say, and one whose answers
it takes one by one may go on for ever.
"""

from __future__ import annotations

from mlserve.rpc.codes import Code
from mlserve.rpc.connection import Connection
from mlserve.rpc.frames import Error
from mlserve.rpc.shared import Shared
from mlserve.rpc.stream import Refused


def sweep(shared: Shared, now: float) -> None:
    """Look at every connection. Called about once a second, so that what moves is seen to."""
    for connection in list(shared.connections):
        owed = connection.owed()
        if owed is None or owed != connection.seen:
            connection.seen, connection.since = owed, now
        elif now - connection.since > shared.patience:
            connection.cut()  # closing would wait for the client
            continue
        if not connection.stuffed:  # else it is us who do not read
            _sweep_streams(connection, now, shared.patience)


def _sweep_streams(connection: Connection, now: float, patience: float) -> None:
    for stream in list(connection.streams.values()):
        owed = stream.owed()
        if owed is None or owed != stream.seen:
            stream.seen, stream.since = owed, now
        elif owed < 0 and now - stream.since > patience:
            connection.end_stream(stream, Error.CANCEL)
        elif now - stream.since > patience:
            text = f"The request did not arrive within {patience:g} s (header_timeout)"
            stream.refuse(Refused(Code.DEADLINE_EXCEEDED, text))
