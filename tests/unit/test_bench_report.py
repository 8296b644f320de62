"""What ``mlserve bench`` shows of results: columns, dashes, limits, notes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlserve.cli.bench_report import Limits, curve, document, heading, notes, table
from mlserve.load import LoadResult, Payload, Target
from mlserve.load.result import Recorder

TARGET = Target("http://127.0.0.1:8080", "/predictions/cats", (Payload(b"secret"),), headers=(("Authorization", "k"),))


def result(answers: int = 1000, mode: str = "closed", **fields: Any) -> LoadResult:
    """Latencies of 1, 2, 3, ... ms."""
    made = LoadResult(mode, 8, seconds=10.0, requests=answers, answered=answers, **fields)
    for number in range(1, answers + 1):
        made.latency.add(number / 1000)
        made.first_byte.add(number / 2000)
    return made


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("width", [80, 120, 200])
def test_table_is_wider_than_the_terminal(width: int, streamed: bool) -> None:
    headers, rows = table([result(), result(streamed=streamed)], width)
    widest = [max(len(line[column]) for line in (headers, *rows)) for column in range(len(headers))]
    assert sum(size + 3 for size in widest) + 1 <= width
    assert ("P99" in headers, "1ST B" in " ".join(headers)) == (True, streamed)


def test_percentile_of_few_answers_is_their_maximum() -> None:
    (few,) = table([result(99)], 200)[1]
    (many,) = table([result(1000)], 200)[1]
    assert few[2:8] == ["50.0 ms", "90.0 ms", "95.0 ms", "–", "–", "99.0 ms"]
    assert many[2:8] == ["500 ms", "900 ms", "949 ms", "990 ms", "999 ms", "1.00 s"]
    assert set(table([result(0)], 200)[1][0][2:8]) == {"–"}


def test_limits_are_not_compared() -> None:
    limits = Limits((("p50", 0.6), ("p99", 0.5)), 200)
    broken = limits.broken(result())
    assert len(broken) == 2
    assert broken[0].startswith("8 connections: p99 is 990 ms")
    assert "100.0 requests/s, less than 200" in broken[1]
    assert Limits((("p99", 1.0),), 99).broken(result()) == []
    assert Limits((("p99", 1.0),)).broken(result(0)) == ["8 connections: no good answer"]
    assert Limits().broken(result(0)) == []


def test_loop_is_not_named() -> None:
    assert "not corrected for coordinated omission" in heading(TARGET, "closed", "poisson", 1)
    said = heading(TARGET, "open", "constant", 0)
    assert "constant arrivals, latency from the moment a request was meant to be sent" in said
    assert "warm-up" not in said


def test_client_that_is_the_bottleneck_says_nothing() -> None:
    assert "took 95% of a core" in notes([result(cpu_share=0.95)])[0]
    assert "waited for a processor 30%" in notes([result(cpu_share=0.3, wait_share=0.3)])[0]
    late = result(mode="open")
    late.late.add(0.02)
    assert "sent 20.0 ms or more after" in notes([late])[0]
    assert notes([result(cpu_share=0.5)]) == []


def test_errors_are_not_told_apart() -> None:
    bad = result(10, errors={"timeout": 1, "HTTP 503": 3}, examples={"HTTP 503": "Busy: wait"})
    assert notes([bad]) == ["8 connections: 3 of 10: HTTP 503 (Busy: wait)", "8 connections: 1 of 10: timeout"]


def test_json_has_nan_or_secrets() -> None:
    text = json.dumps(document(TARGET, [result(0), result(5, mode="open")], ["x"]), allow_nan=False)
    assert "secret" not in text
    assert "Authorization" not in text
    first, second = json.loads(text)["runs"]
    assert first["latencyMs"]["p99"] is None
    assert (first["concurrency"], second["offeredRate"]) == (8, 8)
    assert second["latencyFrom"] == "intended sending"


def test_plot_has_a_level_without_answers_or_is_unsorted() -> None:
    high, empty = result(4), result(0)
    high.level = 16
    assert curve([high, empty, result(4)])["level"] == [8, 16]


def test_late_answer_counts_for_throughput_or_not_for_latency() -> None:
    made = LoadResult("closed", 1)
    recorder = Recorder(made, begin=10.0, end=20.0)
    recorder.answered(9.0, 9.0, 9.5, 11.0, 1)  # of the warm-up
    recorder.answered(12.0, 12.0, 12.5, 13.0, 1)
    recorder.answered(19.0, 19.0, 19.5, 29.0, 1)
    recorder.failed(19.5, "timeout")
    recorder.failed(9.5, "timeout")
    recorder.stop_clock(20.0)
    assert (made.requests, made.answered, made.latency.count, made.seconds) == (3, 2, 2, 10.0)
    assert made.latency.largest == 10.0
    assert made.errors == {"timeout": 1}


def test_answer_of_the_warm_up_is_one_of_so_many() -> None:
    made = LoadResult("closed", 1)
    recorder = Recorder(made, begin=10.0, end=20.0, by_number=True)
    recorder.answered(9.0, 9.0, 9.5, 11.0, 1)
    recorder.answered(11.0, 11.0, 11.5, 12.0, 1)
    assert (made.requests, made.answered) == (1, 1)
