"""A lone request beside the machine's own floor: ``scripts/bench lone [--realtime]``.

The floor is what no server in this interpreter can be below: a bare uvloop protocol that sends 150 bytes over a
socketpair to a second process and answers when they are back; it reads no HTTP and computes nothing. Both are asked
over one connection, in turn, and every answer is timed, so that the slow ones can be counted: those that the floor has
as well are the machine's. With ``--realtime`` (Linux, root) everything here goes before all other programs.
"""

import argparse
import os
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers import mlserve_peer
from benchmarks.peers.base import Site, ask
from benchmarks.servers import Server, free_ports, launch
from benchmarks.works import WORKS, prepare

SITE = Site(Path(__file__).resolve().parent / ".scratch", sys.executable)
SLOW = 1e-3  # seconds
FLOOR = """
import asyncio, os, socket, sys, uvloop
near, far = socket.socketpair()
if not os.fork():
    near.close()
    while data := far.recv(65536):
        far.sendall(data)
    os._exit(0)
far.close()
near.setblocking(False)
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/plain\\r\\ncontent-length: 2\\r\\n\\r\\nOK"
waiting = []

class Link(asyncio.Protocol):
    def data_received(self, data):
        waiting.pop(0).write(ANSWER)

class Client(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        waiting.append(self.transport)
        link.write(b"x" * 150)

async def main():
    global link
    loop = asyncio.get_running_loop()
    link, _ = await loop.create_connection(Link, sock=near)
    await (await loop.create_server(Client, "127.0.0.1", int(sys.argv[1]))).serve_forever()

uvloop.run(main())
"""


@dataclass
class Side:
    """One of the two, what it was asked, and what each window gave: milliseconds, and CPU in us a request."""

    server: Server
    url: str
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    slow: list[float] = field(default_factory=list)  # share of answers slower than SLOW, in percent
    front: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def cpu(self) -> tuple[float, float]:
        """Seconds of its first process, and of all others."""
        root, *rest = [sum(one.cpu_times()[:2]) for one in self.server.family()]
        return root, sum(rest)


def floor(stack: ExitStack) -> Side:
    """The bare protocol, answering."""
    run_dir = SITE.scratch / "run" / "floor"
    (run_dir / "tmp").mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    python = mlserve_peer.install(SITE) / "bin" / "python"
    server = launch("floor", port, [python, "-c", FLOOR, port], run_dir, dict(os.environ))
    stack.callback(server.stop)
    return Side(server, server.url + "/")


def ours(stack: ExitStack) -> Side:
    """mlserve with the no-op handler, as compared with others."""
    work = WORKS["noop"]
    server = mlserve_peer.start(SITE, work.job(SITE))
    stack.callback(server.stop)
    asked = mlserve_peer.request(SITE, work.job(SITE), work.make_rows(SITE.assets)[0].payloads)
    server.wait_ready(lambda: ask(server.url, asked)[0] == 200)
    return Side(server, server.url + asked.path)


def measure(side: Side, seconds: float) -> None:
    """One window: requests one after the other over one connection."""
    parts = urlsplit(side.url)
    words = f"POST {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    message, found, before = words.encode(), [], side.cpu()
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        now = begun = time.perf_counter()
        while now - begun < seconds:
            client.send(message)
            if b" 200 " not in client.recv(4096):
                raise RuntimeError(f"a wrong answer from {side.url}")
            now, then = time.perf_counter(), now
            found.append(now - then)
    front, others = (1e6 * (after - first) / len(found) for after, first in zip(side.cpu(), before, strict=True))
    side.front.append(front)
    side.others.append(others)
    found.sort()
    side.p50.append(1000 * found[len(found) // 2])
    side.p99.append(1000 * found[len(found) * 99 // 100])
    side.slow.append(100 * sum(took > SLOW for took in found) / len(found))


def shown(name: str, side: Side) -> str:
    """A line of the table: medians over the windows, the least in brackets."""
    parts = [(side.p50, 3), (side.p99, 3), (side.slow, 2), (side.front, 0), (side.others, 0)]
    cells = [f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f})" for values, digits in parts]
    return f"| {name} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="scripts/bench lone", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="rounds of one second each (default 10)")
    parser.add_argument("--realtime", action="store_true", help="before all other programs (SCHED_FIFO)")
    arguments = parser.parse_args(argv)
    if arguments.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # inherited by what is started
    SITE.scratch.mkdir(exist_ok=True)
    prepare(SITE)
    with ExitStack() as stack:
        sides = [floor(stack), ours(stack)]
        for side in sides:
            measure(side, 1)
            for values in (side.p50, side.p99, side.slow, side.front, side.others):
                values.clear()
        for number in range(arguments.rounds):
            for side in sides[:: 1 if number % 2 == 0 else -1]:
                measure(side, 1)
    print("| | median, ms | p99, ms | over 1 ms, % | front end, us a request | other processes, us |")
    print("| --- |" + " ---: |" * 5)
    for name, side in zip(("floor", "mlserve"), sides, strict=True):
        print(shown(name, side))


if __name__ == "__main__":
    main()
