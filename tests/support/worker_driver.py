"""A real worker process, driven frame by frame over its socket, as the server would."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from mlserve.wire.arena import Arena
from mlserve.wire.frames import FrameReader, Kind, encode_meta, frame, header
from mlserve.wire.payload import (
    BatchMeta,
    CancelMeta,
    ChunkMeta,
    ItemMeta,
    Load,
    LoadFailed,
    LogRecordMeta,
    PartMeta,
    ResultMeta,
)

FAULTS = Path(__file__).parents[1] / "faults" / "handlers"
ARENA = 4 << 20
METAS = {Kind.RESULT: ResultMeta, Kind.CHUNK: ChunkMeta, Kind.FAILED: LoadFailed, Kind.LOG: LogRecordMeta}


class Driver:
    """The server's side of one worker. ``logs`` keeps LOG records; :meth:`next` skips them."""

    def __init__(self, *, arenas=False, env=None):
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        self.request_arena = self.reply_arena = None
        command, fds = [sys.executable, "-m", "mlserve.worker", "--fd", str(theirs.fileno())], [theirs.fileno()]
        if arenas:
            self.request_arena, self.reply_arena = Arena.create(ARENA), Arena.create(ARENA)
            for name, arena in (("arena", self.request_arena), ("reply-arena", self.reply_arena)):
                command += [f"--{name}-fd", str(arena.fd), f"--{name}-size", str(arena.size)]
                fds.append(arena.fd)
        # Files, because a pipe that nobody reads fills up and blocks the worker.
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        self.process = subprocess.Popen(
            command, pass_fds=fds, env=env, stdout=self._out, stderr=self._err, start_new_session=True
        )
        theirs.close()
        self.logs = []
        self._reader = FrameReader()
        self._frames = []
        self.output = None

    def next(self):
        """The next frame that is not a LOG: (kind, batch id, decoded meta, body)."""
        while True:
            while not self._frames:
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError(f"the worker closed the link: {self.end()}")
                self._frames = self._reader.feed(data)
            got = self._frames.pop(0)
            meta = msgspec.msgpack.decode(got.meta, type=METAS.get(got.kind, dict)) if got.meta else None
            if got.kind == Kind.LOG:
                self.logs.append(meta)
                continue
            return Kind(got.kind), got.batch_id, meta, bytes(got.body)

    def load(self, handler, model_dir=FAULTS, config=None, **settings):
        """HELLO, then LOAD; returns the answer to it."""
        assert self.next()[0] == Kind.HELLO
        self.send(frame(Kind.LOAD, 0, Load("m", "1.0", str(model_dir), handler, {}, config or {}, **settings)))
        return self.next()

    def send(self, data):
        self.sock.sendall(data)

    def batch(self, batch_id, *bodies, content_type="", arena=False, name="r", headers=()):
        """Send a batch of one-part items, whose request ids are ``name`` and a number."""
        items, inline = [], []
        for number, body in enumerate(bodies):
            offset = -1
            if arena:
                offset = self.request_arena.alloc(len(body))
                self.request_arena.write(offset, body)
            else:
                inline.append(body)
            parts = [PartMeta("body", content_type, len(body), offset)]
            items.append(ItemMeta(f"{name}{number}", parts, list(headers)))
        meta = encode_meta(BatchMeta(items))
        self.send(header(Kind.BATCH, batch_id, len(meta), sum(map(len, inline))) + meta + b"".join(inline))

    def cancel(self, batch_id, index):
        self.send(frame(Kind.CANCEL, batch_id, CancelMeta(index)))

    def result(self, batch_id=None):
        """The next RESULT: its meta, and one body (or error kind) per item."""
        kind, got_id, meta, body = self.next()
        assert kind == Kind.RESULT, (kind, meta)
        assert batch_id in (None, got_id)
        return meta, self.cut(meta, body)

    def results(self, count):
        """The next ``count`` RESULTs: batch id -> (meta, bodies or error kinds), in the order in which they came."""
        found = {}
        while len(found) < count:
            kind, batch_id, meta, body = self.next()
            assert kind == Kind.RESULT, (kind, meta)
            found[batch_id] = meta, self.cut(meta, body)
        return found

    def cut(self, meta, body):
        """One body (or error kind) per item of a RESULT."""
        answers, position = [], 0
        for item in meta.items:
            if item.error:
                answers.append(item.error)
            elif item.offset >= 0:
                answers.append(bytes(self.reply_arena.view(item.offset, item.length)))
            else:
                answers.append(body[position : position + item.length])
                position += item.length
        assert position == len(body)
        return answers

    def ask(self, *bodies, batch_id=1, **options):
        self.batch(batch_id, *bodies, **options)
        return self.result(batch_id)

    def printed(self):
        """What the worker has written so far: (stdout, stderr)."""
        return tuple(os.pread(file.fileno(), 1 << 20, 0).decode() for file in (self._out, self._err))

    def end(self, timeout=20):
        """Wait for the process; returns (exit code, stdout, stderr)."""
        if self.output is None:
            code = self.process.wait(timeout=timeout)
            self.output = code, *self.printed()
        return self.output

    def close(self):
        """Leave nothing behind."""
        self.sock.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()
        for arena in (self.request_arena, self.reply_arena):
            if arena is not None:
                arena.close()


def wait_for(condition, seconds=10.0):
    """Return once ``condition()`` is true; fail after ``seconds``."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)
