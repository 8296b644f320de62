"""2,000 requests at once, each over a connection of its own, to the no-op handler: is each answered, and by when?

All connections stand before the first byte is sent; then every request is written in one go. The client takes 0.1 s
of a core for it, the same for every server. All servers are up; each gets its burst in turn within a round.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httptools

from benchmarks.peers import Peer, described
from benchmarks.peers.base import Site
from benchmarks.rounds import find_busy, start_all, warm_up
from benchmarks.works import WORKS, prepare
from benchmarks.wrk import Request

COUNT = 2000
TIMEOUT = 60.0


class Answer(asyncio.Protocol):
    """One connection: ``done`` becomes the time of the whole answer, or an exception."""

    def __init__(self) -> None:
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Some of the answer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_message_complete(self) -> None:
        """All of it."""
        if self.parser.get_status_code() != 200:
            self._fail(RuntimeError(f"status {self.parser.get_status_code()}"))
        elif not self.done.done():
            self.done.set_result(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        """Before the answer: a failure."""
        self._fail(error or ConnectionError("closed without an answer"))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


async def fire(url: str, request: Request, count: int = COUNT) -> dict[str, float]:
    """Answers, failures, seconds to the last answer, median and longest wait of one request in ms."""
    where, loop, body = urlsplit(url), asyncio.get_running_loop(), request.bodies[0].read_bytes()
    lines = [f"POST {request.path} HTTP/1.1", f"Host: {where.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: {request.content_type}", *(f"{name}: {value}" for name, value in request.headers)]
    raw = "\r\n".join([*lines, "", ""]).encode() + body
    open_now: list[Answer] = []
    for _ in range(0, count, 100):  # a hundred at a time, so that no backlog overflows
        made = await asyncio.gather(*(loop.create_connection(Answer, where.hostname, where.port) for _ in range(100)))
        open_now += [protocol for _, protocol in made]
    started = time.perf_counter()
    for each in open_now:
        assert each.transport is not None
        each.transport.write(raw)
    await asyncio.wait([each.done for each in open_now], timeout=TIMEOUT)
    times = []
    for each in open_now:
        if each.done.done() and each.done.exception() is None:
            times.append(each.done.result() - started)
        each.done.cancel()
        assert each.transport is not None
        each.transport.abort()
    times.sort()
    result = {"answered": float(len(times)), "failed": float(count - len(times))}
    return result | ({"p50_ms": statistics.median(times) * 1000, "last_s": times[-1]} if times else {})


def measure(chosen: Sequence[Peer], site: Site, rounds: int) -> dict[str, Any]:
    """``rounds`` bursts on every server."""
    prepare(site)
    work = WORKS["noop"]
    row = work.make_rows(site.assets)[2]
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        running, missing = start_all(chosen, site, work.job(site), row, stack)
        missing |= warm_up(running, [row], 1)
        paused = find_busy(running)
        for number in range(rounds):
            for each in running[number % len(running) :] + running[: number % len(running)]:
                try:
                    one = asyncio.run(fire(each.server.url, each.awake(row)))
                except (RuntimeError, OSError) as error:  # it is gone, or takes no connection
                    print(f"{each.peer.TITLE}: {error}", file=sys.stderr, flush=True)
                    one = {"answered": 0.0, "failed": float(COUNT)}
                each.rest()
                found.setdefault(each.peer.NAME, []).append(one)
                shown = "  ".join(f"{key} {value:,.2f}" for key, value in one.items())
                print(f"round {number + 1}  burst  {each.peer.TITLE:10} {shown}", flush=True)
    notes = {each.peer.TITLE: described(each.peer, site) for each in running}
    titles = {peer.NAME: peer.TITLE for peer in chosen}
    return {"servers": found, "missing": missing, "paused": paused, "notes": notes, "table": table(found, titles)}


def table(found: dict[str, list[dict[str, float]]], titles: dict[str, str]) -> str:
    """Markdown: a line per server, medians over rounds, failures added up."""
    lines = [f"| server | answered of {COUNT:,} | failed in all rounds | last answer after, s | median wait, ms |"]
    lines.append("| --- |" + " ---: |" * 4)
    for name, rounds in found.items():
        cells = [f"{statistics.median(one['answered'] for one in rounds):,.0f}"]
        cells.append(f"{sum(one['failed'] for one in rounds):,.0f}")
        for key, digits in (("last_s", 2), ("p50_ms", 0)):
            values = [one[key] for one in rounds if key in one]
            cells.append(f"{statistics.median(values):,.{digits}f}" if values else "–")
        lines.append(f"| {titles[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)
