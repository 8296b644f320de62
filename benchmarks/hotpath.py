"""The hot path by part, in one process and without a socket: ``scripts/bench hotpath``.

The fast lane, the queue, the link and the worker's runner are the real ones; between them lie transports that only
keep what is written. So what is timed is the code of the project, without the kernel, uvloop and the scheduler, and the
least of many rounds is the same from run to run even while others use the machine. One round: 32 clients send a request
each, the queue pumps until all are answered in batches of 8.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import socket
import time
from typing import Any

import uvloop

from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.service import InferenceService
from mlserve.engine.local.link import WorkerLink
from mlserve.handler import Context
from mlserve.log import AccessLog
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rest.fast import FastLane
from mlserve.rest.lane import LaneShared, Limits
from mlserve.wire.frames import FrameReader, encode_meta, header
from mlserve.wire.payload import Load
from mlserve.worker.context import make_context
from mlserve.worker.link import Link
from mlserve.worker.loader import Entry
from mlserve.worker.rows import RowDecoder
from mlserve.worker.runner import Runner, Work

BATCH = 8
RESULT = 67
REQUEST = (
    b"POST /predictions/noop HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
PARTS = ("read", "send", "worker", "answer")


class Clock:
    """The event loop's part: what is to run soon runs when :meth:`turn` is called."""

    def __init__(self) -> None:
        self.time = time.monotonic
        self.soon: list[Any] = []

    def call_soon(self, callback: Any, *args: Any) -> None:
        """Keep it for the next turn."""
        self.soon.append((callback, args))

    def call_later(self, delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        """As the loop does."""
        return asyncio.get_running_loop().call_later(delay, callback, *args)

    def turn(self) -> None:
        """Run what was kept."""
        soon, self.soon = self.soon, []
        for callback, args in soon:
            callback(*args)


class Pipe:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def get_extra_info(self, name: str) -> Any:
        """The address of a client."""
        return ("127.0.0.1", 50000)

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.pieces.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        """Keep them."""
        self.pieces += pieces

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Everything leaves at once."""
        return 0

    def take(self) -> bytes:
        """What was written since the last call."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data


class _Pool:
    target = live = 1

    def describe(self) -> list[Any]:
        return []


class _Engine:
    def open(self, spec: ModelSpec, events: Any) -> Any:
        return _Pool()


class _Source:
    async def resolve(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        key = ModelKey("noop", "1.0")
        return ModelSpec(key, "/x", "h", batch_size=BATCH, max_batch_delay_ms=5, min_workers=0, job_queue_size=10_000)

    def release(self, spec: ModelSpec) -> None:
        """Nothing was unpacked."""


def noop(data: list[Any], context: Context) -> list[str]:
    """The handler of benchmarks/handlers/noop.py."""
    return ["OK"] * len(data)


class HotPath:
    """Everything between 32 clients' sockets and a worker's, both excluded."""

    def __init__(self, lanes: list[FastLane], clock: Clock, link: WorkerLink, request: bytes) -> None:
        load = Load("noop", "1.0", "", "noop", {}, {}, batch_size=BATCH)
        self.runner = Runner(
            Entry(noop, "noop"), make_context(load), load, RowDecoder(load, None), Link(socket.socketpair()[0]), None
        )
        self.lanes = lanes
        self.clock = clock
        self.link = link
        self.down = Pipe()
        link.connection_made(self.down)
        self.request = request
        self.reader = FrameReader()
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def round(self) -> dict[str, float]:
        """One request of each client, answered; seconds by part."""
        now = time.perf_counter
        seconds = dict.fromkeys(PARTS, 0.0)
        begun = now()
        for lane in self.lanes:
            lane.data_received(self.request)
        read = now()
        self.clock.turn()
        sent = now()
        seconds["read"], seconds["send"] = read - begun, sent - read
        while data := self.down.take():
            begun = now()
            answers = [self._work(frame) for frame in self.reader.feed(data)]
            worked = now()
            for answer in answers:
                self.link.data_received(answer)
            seconds["worker"] += worked - begun
            seconds["answer"] += now() - worked
        return seconds

    def _work(self, frame: Any) -> bytes:
        meta, bodies = self.runner.handle(Work(frame.batch_id, frame.meta, frame.body, time.monotonic()))
        encoded = encode_meta(meta)
        return b"".join((header(RESULT, frame.batch_id, len(encoded), sum(map(len, bodies))), encoded, *bodies))


async def build(log: str, size: int, clients: int) -> HotPath:
    """The parts put together, with the access log in the file ``log`` (``off`` = none)."""
    clock = Clock()
    service = InferenceService(_Engine(), _Source(), clock)
    await service.register("noop.mar", {})
    queue = service.find("noop").queue
    link = WorkerLink(1, queue, None)
    access = AccessLog(log) if log != "off" else None
    shared = LaneShared(service, None, access, HttpOptions(), RequestIds(), Limits())
    lanes = [FastLane(shared) for _ in range(clients)]
    for lane in lanes:
        lane.connection_made(Pipe())
    path = HotPath(lanes, clock, link, REQUEST % (size, b"x" * size))
    queue.slot_ready(link)
    return path


def check(path: HotPath) -> None:
    """Every client has its answer, or the times mean nothing."""
    path.round()
    for lane in path.lanes:
        answer = lane.transport.take()
        if not (answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nOK")):
            raise RuntimeError(f"a wrong answer: {answer!r}")


def measure(path: HotPath, rounds: int) -> dict[str, float]:
    """Microseconds per request by part: the least of all rounds."""
    best = dict.fromkeys(PARTS, 1e9)
    total = 1e9
    for _ in range(rounds):
        seconds = path.round()
        for lane in path.lanes:
            lane.transport.pieces.clear()
        for part in PARTS:
            best[part] = min(best[part], seconds[part])
        total = min(total, sum(seconds.values()) - seconds["worker"])
    clients = len(path.lanes)
    return {part: best[part] / clients * 1e6 for part in PARTS} | {"frontend": total / clients * 1e6}


async def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", default="/dev/null", help="access log, or off")
    parser.add_argument("--size", type=int, default=5, help="bytes of a request's body")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6000, help="of 32 clients")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by function")
    options = parser.parse_args()
    path = await build(options.log, options.size, options.clients)
    for _ in range(50):
        check(path)
    gc.collect()
    gc.freeze()
    if options.profile:
        with cProfile.Profile() as profile:
            measure(path, 16_000 // options.clients)
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    figures = measure(path, max(20, options.rounds * 32 // options.clients))
    print("us per request: " + "  ".join(f"{part} {value:.2f}" for part, value in figures.items()), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
