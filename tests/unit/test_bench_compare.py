"""What the comparison's figures rest on: verdicts, ratios, and requests in the forms that other servers take."""

import asyncio
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the benchmarks are not installed
from benchmarks import burst, compare, grpc_load, report, rounds, steady, steal, summary, targets, wrk
from benchmarks.peers import PEERS, base, peer, triton_peer
from mlserve.rpc.generated import inference_pb2


def loads(*rates, p50=1.0, p99=0.5, errors=0):
    return [{"rate": rate, "p50_ms": p50, "p99_ms": p99, "errors": errors, "cpu_ms": 1} for rate in rates]


def noop(title, **servers):
    return {"title": title, "loads": servers, "loop": [], "failed": {}}


def results(mosec):
    row = noop("no-op, 32 connections", mlserve=loads(100, 400), mosec=mosec)
    row["loads"] |= {"triton": loads(10, 10), "torchserve": loads(10, 10)}
    return {"noop": {"rows": [row]}}


def verdict(found, start):
    return next(line for line in targets.table(found).splitlines() if line.startswith(f"| {start}")).split(" | ")[-1]


def test_a_ratio_is_taken_within_a_round_not_between_medians():
    assert report.ratios(loads(100, 400), loads(50, 100), "rate") == [2, 4]


@pytest.mark.parametrize("wrong", ["--rounds=0", "--rounds=-1", "--rounds=1.5", "--minutes=0", "--minutes=nan"])
def test_results_are_written_over_by_a_run_of_nothing(wrong, capsys):
    with pytest.raises(SystemExit):
        compare.parse([wrong])
    assert wrong.split("=")[0] in capsys.readouterr().err.splitlines()[-1]
    assert compare.parse(["--rounds=2", "--minutes=0.5"]).minutes == 0.5


def test_a_figure_that_is_missed_is_not_called_reached():
    assert verdict(results(loads(50, 100)), "no-op, 32") == "yes |"
    assert verdict(results(loads(100, 400)), "no-op, 32") == "**no** |"


def test_a_figure_without_its_peer_is_not_called_reached():
    found = results(loads(50, 100))
    del found["noop"]["rows"][0]["loads"]["triton"]
    assert verdict(found, "no-op, 32") == "**no** |"
    assert verdict({}, "no-op, 32") == "not measured |"


def test_errors_at_many_connections_are_not_called_reached():
    row = noop("no-op, 512 connections", mlserve=loads(100, 400, errors=1))
    found = results(loads(50, 100))
    found["noop"]["rows"].append(row)
    assert verdict(found, "no-op, 512") == "**no** |"
    row["loads"]["mlserve"] = loads(100, 400)
    assert verdict(found, "no-op, 512") == "yes |"


def test_a_failed_row_is_shown_with_its_reason():
    row = noop("echo", mlserve=loads(3)) | {"failed": {"mosec": "413 | too large"}}
    assert "| echo | mosec | failed: 413 / too large |" in report.table({"rows": [row]}, lambda name: name)


def test_every_line_of_the_table_has_a_cell_for_each_column():
    row = noop("echo", mlserve=loads(3)) | {"failed": {"mosec": "413"}, "loop": [5.0]}
    assert len({line.count("|") for line in report.table({"rows": [row]}, lambda name: name).splitlines()}) == 1


def test_time_that_the_host_took_is_not_hidden(monkeypatch):
    ticks = iter([(2.0, 10.0), (5.0, 20.0)])
    monkeypatch.setattr(steal, "_seconds", lambda: next(ticks))
    share = steal.Stolen().share()
    rows = [{**load, "stolen": each} for load, each in zip(loads(3, 3, 3), (0.0, share, 0.02), strict=True)]
    assert "| 2% (30%) |" in report.table({"rows": [noop("echo", mlserve=rows)]}, lambda name: name)


def test_wrong_answers_are_not_taken_for_right_ones():
    assert rounds.same('{"class": 285, "score": 0.347}', '{"score": 0.3475, "class": 285}')
    assert not rounds.same('{"class": 281, "score": 0.347}', '{"class": 285, "score": 0.347}')
    assert not rounds.same("[0.1, 0.2]", "[0.1, 0.3]")
    assert not rounds.same("[0.1]", "[0.1, 0.2]")


def test_grpc_bodies_are_the_messages_that_clients_send():
    body = bytes(range(256)) * 5
    sent = inference_pb2.PredictionsRequest.FromString(grpc_load.message("mlserve", "noop", body))
    assert sent == inference_pb2.PredictionsRequest(model_name="noop", input={"data": body})


def test_triton_s_binary_answer_is_found_behind_its_head():
    assert (
        triton_peer.answer(b'{"outputs":[{"name":"OUT"}]}' + (5).to_bytes(4, "little") + b"{\x00}\xff.")
        == b"{\x00}\xff."
    )


def test_a_body_in_json_comes_back_as_it_was(tmp_path):
    for body, is_text in ((b"hello", True), (b"\x00\xff", False)):
        assert base.unwrap(json.loads(json.dumps(base.wrap(body, is_text)))) == body


def test_every_peer_has_what_the_comparison_asks_of_it():
    for name in PEERS:
        found = peer(name)
        assert name == found.NAME
        assert found.TITLE
        assert found.NOTE
        assert found.PACKAGES
        assert isinstance(found.WAITS, bool)


def test_unanswered_requests_of_a_burst_count_as_failed(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"hello")
    asked = []

    async def serve(reader, writer):
        await reader.readuntil(b"hello")
        asked.append(writer)
        status = {0: "503 Busy", 1: ""}.get(len(asked) % 50, "200 ")  # an empty reason, as some servers send it
        if status:
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nOK".encode())
        writer.close()

    async def burst_of_100():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await burst.fire(url, wrk.Request("/x", (body,), "text/plain", "OK"), 100)

    found = asyncio.run(burst_of_100())
    assert (found["answered"], found["failed"]) == (96, 4)
    assert 0 < found["p50_ms"] <= found["last_s"] * 1000


def test_a_configuration_of_some_works_is_not_said_of_all():
    found = {work: {"notes": {"mosec": "1.0", "mlserve": note}} for work, note in (("noop", "a"), ("vad", "b"))}
    assert summary.configurations(found) == {"mosec": "1.0", "mlserve": "noop: a; vad: b"}


def test_a_published_command_loses_its_quotes():
    words = ["--work", "steady", "--peers", "", "--only", "a b"]
    published = report.command("compare", [*words, "--update-readme"])
    assert published == "scripts/bench compare --work steady --peers '' --only 'a b'"
    assert shlex.split(published)[2:] == words


def test_a_second_that_the_host_takes_is_the_p99_of_a_minute() -> None:
    load = wrk.Load(requests=10, rate=10.0, p50_ms=1.0, p99_ms=2.0, stolen=0.0)
    disturbed = replace(load, rate=4.0, p99_ms=60.0, errors=1, stolen=0.5)
    found = steady.window([load, load, disturbed])
    assert found == {"rate": 8.0, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 1, "stolen": pytest.approx(0.5 / 3)}
