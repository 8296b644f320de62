import json
import os
import stat
import tempfile

import psutil
import pytest

from mlserve.cli import pidfile
from mlserve.cli.pidfile import AlreadyRunning, PidFile, default_path, find_server
from mlserve.errors import ServeError
from mlserve.settings import load_settings


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def entry(**changes) -> str:
    started = psutil.Process().create_time()
    return json.dumps({"pid": os.getpid(), "started": started, **changes})


def test_file_tells_the_process_and_only_its_user_can_read_it(tmp_path):
    file = PidFile(tmp_path / "p")
    file.claim(inference_port=8080, log_file="/l")
    file.add_address("inference", "http://h:1")
    file.update(state="ready")
    info = PidFile(tmp_path / "p").read()
    assert (info.pid, info.state, info.addresses) == (os.getpid(), "ready", {"inference": "http://h:1"})
    assert info.process().pid == os.getpid()
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o600
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_second_server_cannot_take_a_live_ones_file(tmp_path):
    first, second = PidFile(tmp_path / "p"), PidFile(tmp_path / "p")
    first.claim()
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        second.claim()
    second.remove()
    assert first.read() is not None
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(
    "content",
    [
        entry(started=1.0),  # the process id was given to another process
        entry(pid=2**22 + 1),  # no such process
        entry(pid=-1),
        entry(pid="1"),
        entry(unknown=1),
        "{}",
        "[]",
        "12345",
        "\x00\xff",
        "",
    ],
    ids=range(10),  # their texts hold this process's id and time: no two runners would agree on the names
)
def test_stale_or_broken_file_is_taken_over(tmp_path, content):
    path = tmp_path / "p"
    path.write_text(content)
    assert PidFile(path).read() is None
    file = PidFile(path)
    file.claim()
    assert file.read().pid == os.getpid()


def test_file_of_another_user_is_not_believed(tmp_path, monkeypatch):
    path = tmp_path / "p"
    path.write_text(entry())
    assert PidFile(path).read() is not None
    monkeypatch.setattr(pidfile.os, "getuid", lambda: os.geteuid() + 1)
    assert PidFile(path).read() is None


def test_link_and_fifo_are_not_followed_or_waited_for(tmp_path):
    (tmp_path / "real").write_text(entry())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo")
    assert PidFile(tmp_path / "link").read() is None
    assert PidFile(tmp_path / "fifo").read() is None


def test_file_that_another_server_has_meanwhile_is_left_alone(tmp_path):
    file = PidFile(tmp_path / "p")
    file.claim()
    (tmp_path / "p").write_text(entry(pid=1))
    file.remove()
    assert (tmp_path / "p").exists()


def test_default_place_is_one_per_user_and_port(tmp_path):
    settings = load_settings(flags={"server.inference_port": "9000"})
    assert default_path(settings) == tmp_path / f"mlserve-{os.getuid()}-9000.pid"
    assert default_path(settings, "log") == tmp_path / f"mlserve-{os.getuid()}-9000.log"
    assert default_path(load_settings(flags={"server.pid_file": "/x"})).as_posix() == "/x"


def test_only_server_is_found_without_naming_its_port(tmp_path):
    assert find_server(load_settings()).read() is None
    PidFile(default_path(load_settings(flags={"server.inference_port": "9000"}))).claim()
    assert find_server(load_settings()).path.name.endswith("-9000.pid")
    assert find_server(load_settings(flags={"server.inference_port": "9001"})).read() is None


def test_several_servers_are_not_chosen_between_by_chance(tmp_path):
    for port in ("9000", "9001"):
        PidFile(default_path(load_settings(flags={"server.inference_port": port}))).claim()
    with pytest.raises(ServeError, match=r"choose one with --pid-file: .*9000.pid, .*9001.pid"):
        find_server(load_settings())
