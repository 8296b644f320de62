"""Servers of a comparison that cannot be set up, do not start or answer wrongly: they are missing, and nothing more."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the benchmarks are not installed
from benchmarks import burst, grpc_load, rounds, startup
from benchmarks.peers.environment import MissingPeerError, site_packages
from benchmarks.wrk import WrongAnswerError

BROKEN = {
    "a package that there is not": (MissingPeerError("no such package"), "no such package"),
    "a program that there is not": (FileNotFoundError(2, "No such file", "bin/python"), "bin/python"),
    "a command that hangs": (subprocess.TimeoutExpired(["archiver"], 120), "timed out"),
    "an error without a word": (RuntimeError(), "RuntimeError"),
}


class Server:
    """Stands for a process; ``stops`` is how often it was stopped."""

    url = "http://127.0.0.1:1"

    def __init__(self, starts=True):
        self.starts, self.stops, self.paused = starts, 0, False

    def wait_ready(self, ask):
        if not self.starts:
            raise RuntimeError("it did not get ready:\nthe port is taken")
        return 1.0

    def stop(self):
        self.stops += 1


def peer(name, server=None, error=None):
    def install(site):
        if error is not None:
            raise error

    return SimpleNamespace(
        NAME=name, TITLE=name.title(), install=install, start=lambda site, job: server, request=lambda *given: None
    )


@pytest.mark.parametrize("case", BROKEN)
def test_a_peer_that_cannot_be_set_up_does_not_end_the_comparison(case):
    error, reason = BROKEN[case]
    server = Server()
    with ExitStack() as stack:
        row = SimpleNamespace(payloads=())
        chosen = [peer("mosec", error=error), peer("mlserve", server)]
        running, missing = rounds.start_all(chosen, None, None, row, stack)
        assert [each.peer.NAME for each in running] == ["mlserve"]
        assert reason in missing["mosec"]
        assert server.stops == 0
    assert server.stops == 1


def test_mlserve_itself_is_not_called_missing():
    with ExitStack() as stack, pytest.raises(MissingPeerError):
        rounds.start_all([peer("mlserve", error=MissingPeerError("no compiler"))], None, None, None, stack)


def test_a_server_that_does_not_get_ready_is_not_left_beside_the_others():
    server = Server(starts=False)
    with ExitStack() as stack:
        row = SimpleNamespace(payloads=())
        running, missing = rounds.start_all([peer("ray", server)], None, None, row, stack)
        assert (running, missing) == ([], {"ray": "the port is taken"})
        assert server.stops == 1


def test_a_server_that_answers_wrongly_is_not_left_beside_the_others():
    each = rounds.Running(peer("ray"), Server(), None, None)
    running = [each]
    assert rounds.drop(each, running, WrongAnswerError("Ray answers b''")) == "Ray answers b''"
    assert (running, each.server.stops) == ([], 1)


def test_a_peer_without_an_environment_is_not_asked_for_its_version(monkeypatch):
    monkeypatch.setattr(grpc_load, "prepare", lambda site: None)
    monkeypatch.setattr(grpc_load, "start_all", lambda peers, *_: ([], {one.NAME: "no wheel" for one in peers}))
    monkeypatch.setattr(grpc_load, "find_busy", lambda running: [])
    site = SimpleNamespace(assets=Path(), scratch=Path())
    found = grpc_load.measure([peer("triton", error=MissingPeerError("no wheel"))], site, SimpleNamespace(rounds=0))
    assert (found["missing"], found["notes"]) == ({"triton": "no wheel"}, {})
    monkeypatch.setattr(startup, "prepare", lambda site: None)
    found = startup.measure([peer("torchserve", error=OSError("no java"))], site, 0)
    assert (found["missing"], found["servers"]) == ({"torchserve": "no java"}, {})


def test_an_environment_that_is_none_says_what_to_do(tmp_path):
    with pytest.raises(MissingPeerError, match="remove it"):
        site_packages(tmp_path)


def test_a_server_that_dies_before_its_burst_does_not_end_the_comparison(monkeypatch, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"hello")
    request = SimpleNamespace(path="/x", bodies=(body,), content_type="text/plain", headers=())
    dead = SimpleNamespace(peer=peer("ray"), server=Server(), awake=lambda row: request, rest=lambda: None)
    monkeypatch.setattr(burst, "prepare", lambda site: None)
    monkeypatch.setattr(burst, "start_all", lambda *_: ([dead], {}))
    monkeypatch.setattr(burst, "warm_up", lambda *_: {})
    monkeypatch.setattr(burst, "find_busy", lambda running: [])
    monkeypatch.setattr(burst, "described", lambda *_: "")
    site = SimpleNamespace(assets=tmp_path)
    found = burst.measure([dead.peer], site, 1)
    assert found["servers"] == {"ray": [{"answered": 0.0, "failed": 2000.0}]}
    assert "| Ray | 0 | 2,000 | – | – |" in found["table"]
