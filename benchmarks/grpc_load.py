"""gRPC: the no-op and an echo of 1 MiB on mlserve, TorchServe and Triton, loaded by h2load.

A unary call is an HTTP/2 POST of one framed message, which h2load sends at full speed; its log has the time of every
call. What it cannot see, the status in the trailers and the answer, is checked by a real client before.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from benchmarks.peers import Peer, described
from benchmarks.peers.base import LARGEST, Payload, Site
from benchmarks.rounds import Running, drop, find_busy, start_all
from benchmarks.steal import Stolen
from benchmarks.works import WORKS, Row, prepare
from benchmarks.wrk import Load, WrongAnswerError

NAMES = ("mlserve", "torchserve", "triton")
TORCHSERVE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
OPEN_INFERENCE = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    title: str
    work: str
    row: int  # of the work's rows, whose payload is taken
    connections: int
    seconds: float


CASES = [
    *(Case(f"gRPC no-op, {count} in flight", "noop", 0, count, 3) for count in (1, 8, 32)),
    Case("gRPC echo of 1 MiB, 8 in flight", "echo", 2, 8, 3),
]


def find_h2load() -> str:
    """The binary; raises RuntimeError with the install command if there is none."""
    path = shutil.which("h2load")
    if path is None:
        raise RuntimeError("h2load was not found; on Debian: apt-get install -y nghttp2-client")
    return path


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found) + bytes([value])


def message(peer: str, model: str, body: bytes) -> bytes:
    """PredictionsRequest with the entry "data", or ModelInferRequest with the tensor IN as raw contents."""
    if peer != "triton":
        return field(1, model.encode()) + field(3, field(1, b"data") + field(2, body))
    tensor = field(1, b"IN") + field(2, b"BYTES") + field(3, b"\x01\x01")
    raw = len(body).to_bytes(4, "little") + body
    return field(1, model.encode()) + field(5, tensor) + field(6, field(1, b"OUT")) + field(7, raw)


def method(peer: str) -> str:
    """The path of the call."""
    return OPEN_INFERENCE if peer == "triton" else TORCHSERVE


def check(each: Running, payload: Payload) -> None:
    """One real call; raises WrongAnswerError on a status or a wrong answer."""
    body, right = payload.body.read_bytes(), payload.expect.encode()
    options = [("grpc.max_receive_message_length", LARGEST), ("grpc.max_send_message_length", LARGEST)]
    with grpc.insecure_channel(f"127.0.0.1:{each.server.ports['grpc']}", options=options) as channel:
        try:
            answer = channel.unary_unary(method(each.peer.NAME))(
                message(each.peer.NAME, each.job.name, body), timeout=30, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise WrongAnswerError(f"{each.peer.TITLE} answers {error.code()} {error.details()}") from error
    if (body if payload.echoed else right) not in answer:
        raise WrongAnswerError(f"{each.peer.TITLE} answers {answer[:200]!r}")


def load(each: Running, payload: Payload, connections: int, seconds: float) -> Load:
    """One timed run: a call in flight on each connection; latencies from h2load's log."""
    framed = message(each.peer.NAME, each.job.name, payload.body.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(b"\x00" + len(framed).to_bytes(4, "big") + framed)
        command = [find_h2load(), "-c", str(connections), "-m", "1", "-t", "1", "-D", str(max(1, round(seconds)))]
        command += ["-w", "24", "-W", "24", "-d", str(body), "--log-file", str(log), "-H", "te: trailers"]
        command += ["-H", "content-type: application/grpc"]
        command.append(f"http://127.0.0.1:{each.server.ports['grpc']}{method(each.peer.NAME)}")
        started, stolen = time.perf_counter(), Stolen()
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
        took, share = time.perf_counter() - started, stolen.share()
        lines = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    times = sorted(int(line[2]) / 1000 for line in lines if line[1] == "200")
    if not times:
        raise RuntimeError(f"h2load got nothing from {each.peer.TITLE} in {took:.1f} s:\n{done.stdout}{done.stderr}")
    # From the first call to the end of the last: h2load takes time to open connections and to end.
    ends = [int(line[0]) + int(line[2]) for line in lines]
    span = (max(ends) - min(int(line[0]) for line in lines)) / 1e6
    errors = len(lines) - len(times)
    return Load(
        len(times), len(times) / span, times[len(times) // 2], times[len(times) * 99 // 100], errors, stolen=share
    )


def measure(chosen: Sequence[Peer], site: Site, plan: Any) -> dict[str, Any]:
    """``plan.rounds`` rounds of every case on every server that speaks gRPC."""
    prepare(site)
    peers = [peer for peer in chosen if peer.NAME in NAMES]
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    paused: list[str] = []
    for name in ("noop", "echo"):
        work = WORKS[name]
        cases = [case for case in CASES if case.work == name]
        shown = work.make_rows(site.assets)
        with ExitStack() as stack:
            running, absent = start_all(peers, site, work.job(site), shown[0], stack)
            missing |= absent
            for each in list(running):
                try:
                    for case in cases:
                        check(each, shown[case.row].payloads[0])
                except WrongAnswerError as error:
                    missing[each.peer.NAME] = drop(each, running, error)
                    continue
                for case in cases:
                    try:
                        load(each, shown[case.row].payloads[0], case.connections, 2)
                    except RuntimeError as error:  # nothing yet: the timed run tells
                        print(f"{each.peer.TITLE} while warming up: {error}", file=sys.stderr, flush=True)
            paused += find_busy(running)
            for case in cases:
                rows.append(
                    {"title": case.title, "connections": case.connections, "loads": {}, "loop": [], "failed": {}}
                )
                one_case(running, shown[case.row], case, rows[-1], plan)
    notes = {peer.TITLE: described(peer, site) for peer in peers if peer.NAME not in missing}
    return {"rows": rows, "missing": missing, "paused": sorted(set(paused)), "notes": notes}


def one_case(running: Sequence[Running], row: Row, case: Case, result: dict[str, Any], plan: Any) -> None:
    """All rounds of one case."""
    for number in range(plan.rounds):
        turned = [*running[number % len(running) :], *running[: number % len(running)]]
        for each in turned:
            try:
                each.awake(row)
                used = each.server.cpu_seconds()
                one = load(each, row.payloads[0], case.connections, case.seconds * plan.scale)
                one = replace(one, cpu_ms=(each.server.cpu_seconds() - used) * 1000 / one.requests)
            except RuntimeError as error:
                result["failed"][each.peer.NAME] = str(error)[:300]
                print(f"{each.peer.TITLE}: {error}", file=sys.stderr, flush=True)
                continue
            finally:
                each.rest()
            result["loads"].setdefault(each.peer.NAME, []).append(asdict(one))
            print(
                f"round {number + 1}  {case.title:40} {each.peer.TITLE:10} {one.rate:10,.1f}/s  "
                f"p50 {one.p50_ms:8.2f} ms  p99 {one.p99_ms:8.2f} ms",
                flush=True,
            )
