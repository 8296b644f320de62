"""Interleaved rounds of one work: all its servers are up, each is measured in turn, answers are checked first.

An idle server that takes more than 2 % of a core is stopped (SIGSTOP) while another one is measured. The order of the
servers is turned every round, so a slow spell of the machine hits all alike, and ratios are taken within a round.
"""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import inprocess, wrk
from benchmarks.peers import FAILURES, Peer, described
from benchmarks.peers.base import Job, Site, ask
from benchmarks.servers import Server
from benchmarks.works import Row, Work, prepare

IDLE_SHARE = 0.02  # of one core
TOLERANCE = 2e-3  # of a score or of a component of a unit vector: float32, summed in another order


@dataclass
class Measured:
    """A row and what each server gave in each round, and the bare loop."""

    row: Row
    loads: dict[str, list[wrk.Load]] = field(default_factory=dict)
    loop: list[float] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """All of one work."""

    rows: list[Measured]
    missing: dict[str, str]
    paused: list[str]
    notes: dict[str, str]


@dataclass
class Running:
    """A peer, its server and its job."""

    peer: Peer
    server: Server
    site: Site
    job: Job
    pauses: bool = False

    def request(self, row: Row) -> wrk.Request:
        """What wrk sends for a row."""
        return self.peer.request(self.site, self.job, row.payloads)

    def awake(self, row: Row) -> wrk.Request:
        """The same, once a paused server answers again. Raises RuntimeError if it does not."""
        request = self.request(row)
        if self.server.paused:
            self.server.resume()
            self.server.wait_ready(lambda: ask(self.server.url, request)[0] == 200)
        return request

    def rest(self) -> None:
        """Let it finish; stop a server that would be busy while another one is measured."""
        self.server.settle()
        if self.pauses:
            self.server.pause()


def start_all(peers: Sequence[Peer], site: Site, job: Job, row: Row, stack: ExitStack) -> tuple[list[Running], dict]:
    """Every peer that can be started, answering; and those that cannot, with the reason."""
    running, missing = [], {}
    for peer in peers:
        with ExitStack() as starting:  # one that does not get ready is not left running beside the others
            try:
                peer.install(site)
                server = peer.start(site, job)
                starting.callback(server.stop)
                found = Running(peer, server, site, job)
                request = found.request(row)
                took = server.wait_ready(lambda server=server, request=request: ask(server.url, request)[0] == 200)
            except FAILURES as error:
                missing[peer.NAME] = absent(peer, error)
                continue
            stack.push(starting.pop_all())
        print(f"{peer.TITLE} answers after {took:.1f} s", flush=True)
        running.append(found)
    return running, missing


def absent(peer: Peer, error: Exception) -> str:
    """Why a peer is missing, for the report; raises ``error`` again where it is mlserve's own."""
    if peer.NAME == "mlserve":
        raise error
    print(f"{peer.TITLE} is missing: {error}", file=sys.stderr, flush=True)
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def drop(each: Running, running: list[Running], error: Exception) -> str:
    """``absent`` for a server that runs already: it is stopped, so that it takes nothing from the others."""
    reason = absent(each.peer, error)
    running.remove(each)
    each.server.stop()
    return reason


def check(each: Running, rows: Sequence[Row], expected: dict[str, str]) -> None:
    """Ask for every payload once and compare the whole answer with the handler's own; raises WrongAnswerError."""
    for row in rows:
        request = each.request(row)
        for number, payload in enumerate(row.payloads):
            status, body = ask(each.server.url, request, number)
            if status != 200:
                raise wrk.WrongAnswerError(f"{each.peer.TITLE} answers {status} to {payload.name}: {body[:300]!r}")
            answer, right = each.peer.answer(body), expected[payload.name]
            if row.work == "echo":
                if answer != payload.body.read_bytes():
                    raise wrk.WrongAnswerError(f"{each.peer.TITLE} does not answer {payload.name} with itself")
            elif not same(answer.decode(), right):
                raise wrk.WrongAnswerError(
                    f"{each.peer.TITLE} answers {answer[:200]!r} to {payload.name}: {right[:200]}"
                )


def same(one: str, other: str) -> bool:
    """Whether two answers are equal, numbers within TOLERANCE."""
    return one == other or close(json.loads(one), json.loads(other))


def close(one: Any, other: Any) -> bool:
    """The same of decoded JSON."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE
    return bool(one == other)


def warm_up(running: list[Running], rows: Sequence[Row], seconds: float) -> dict[str, str]:
    """Load every server with every row, each answer compared; drop a peer that answers wrongly, with the reason."""
    dropped = {}
    for each in list(running):
        for row in rows:
            try:
                took = seconds * (3 if row.slow else 1)
                request = each.awake(row)
                wrk.run(each.server.url, request, connections=min(row.connections, 32), seconds=took, checked=True)
            except wrk.WrongAnswerError as error:
                dropped[each.peer.NAME] = f"{row.title}: {drop(each, running, error)}"[:300]
                break
            except RuntimeError as error:  # nothing yet: the timed run tells
                print(f"{each.peer.TITLE} while warming up: {error}", file=sys.stderr, flush=True)
    return dropped


def find_busy(running: Sequence[Running], seconds: float = 2) -> list[str]:
    """Mark the servers that are busy while nobody asks them; returns their names with the share of a core."""
    for each in running:
        each.server.settle()
    before = [each.server.cpu_seconds() for each in running]
    time.sleep(seconds)
    found = []
    for each, used in zip(running, before, strict=True):
        share = (each.server.cpu_seconds() - used) / seconds
        each.pauses = share > IDLE_SHARE
        if each.pauses:
            found.append(f"{each.peer.TITLE} ({share:.0%} of a core)")
        each.rest()
    return found


def measure(peers: Sequence[Peer], site: Site, work: Work, plan: Any, *, drop_in: bool = False) -> Outcome:
    """Start everything, check, warm up, run ``plan.rounds`` rounds; ``plan.scale`` shortens every run."""
    prepare(site)
    rows, job, python = (
        work.make_rows(site.assets),
        work.job(site, drop_in=drop_in),
        site.scratch / "compute/bin/python",
    )
    measured = [Measured(row) for row in rows]
    payloads = {payload.name: payload for row in rows for payload in row.payloads}
    plain = work.job(site)  # the loop and the right answers are the plain handler's, in drop-in mode too
    files = [payload.body for payload in payloads.values()]
    right = inprocess.run(python, plain.handler, site.assets, files, 0) if work.name != "echo" else files
    expected = {name: str(answer) for name, answer in zip(payloads, right, strict=True)}
    with ExitStack() as stack:
        running, missing = start_all(peers, site, job, rows[0], stack)
        for each in list(running):
            try:
                check(each, rows, expected)
            except (RuntimeError, ValueError) as error:  # what is no answer at all cannot be decoded either
                missing[each.peer.NAME] = drop(each, running, error)
        missing |= warm_up(running, rows, plan.warm_up)
        paused = find_busy(running)
        for number in range(plan.rounds):
            run_round(number, running, measured, plan)
            if work.loop and not drop_in:
                for one in measured:
                    bodies = [payload.body for payload in one.row.payloads]
                    seconds = max(1, one.row.seconds * plan.scale)
                    rate = inprocess.run(python, plain.handler, site.assets, bodies, seconds, sort=work.sort)
                    one.loop.append(rate)
                    print(f"round {number + 1}  {one.row.title:58} {'loop':10} {rate:10,.1f}/s", flush=True)
    return Outcome(measured, missing, paused, {each.peer.TITLE: described(each.peer, site) for each in running})


def run_round(number: int, running: Sequence[Running], measured: Sequence[Measured], plan: Any) -> None:
    """Every row on every server in turn."""
    turned = [*running[number % len(running) :], *running[: number % len(running)]]
    order = turned if number % 2 == 0 else turned[::-1]
    for one in measured:
        for each in order:
            name = each.peer.NAME
            if name in one.failed:
                continue
            seconds = max(1, round(one.row.seconds * plan.scale))
            try:
                request, used = each.awake(one.row), each.server.cpu_seconds()
                load = wrk.run(each.server.url, request, connections=one.row.connections, seconds=seconds)
                load = replace(load, cpu_ms=(each.server.cpu_seconds() - used) * 1000 / load.requests)
            except RuntimeError as error:
                one.failed[name] = str(error)[:300]
                print(f"{each.peer.TITLE}: {error}", file=sys.stderr, flush=True)
                continue
            finally:
                each.rest()
            one.loads.setdefault(name, []).append(load)
            print(
                f"round {number + 1}  {one.row.title:58} {each.peer.TITLE:10} {load.rate:10,.1f}/s  "
                f"p50 {load.p50_ms:8.2f} ms  p99 {load.p99_ms:8.2f} ms  stolen {load.stolen:4.0%}"
                + (f"  {load.errors} errors" if load.errors else ""),
                flush=True,
            )
