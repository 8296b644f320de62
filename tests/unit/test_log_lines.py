import errno
import json
import logging
import mmap
import os
import re
import select
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from mlserve.log import LOGGERS, AccessLog, setup_logging
from mlserve.log.access import MAX_PIECES, PIECE_LINES
from mlserve.log.writer import Output
from mlserve.settings import LogSettings

TIMED = SimpleNamespace(
    queue=0.0012, transfer=0.0003, preprocess=0.001, inference=0.0205, postprocess=0.0001, batch_size=4
)


@pytest.fixture
def stderr(capsys):
    """A function that tells what went to standard error; the loggers are put back afterwards."""
    saved = {name: logging.getLogger(name) for name in LOGGERS}
    state = {name: (list(one.handlers), one.level, one.propagate) for name, one in saved.items()}
    yield lambda: capsys.readouterr().err
    for name, (handlers, level, propagate) in state.items():
        saved[name].handlers, saved[name].level, saved[name].propagate = handlers, level, propagate
        saved[name].setLevel(level)


def written(tmp_path, *lines, format: str = "text") -> list[str]:
    path = tmp_path / "access.log"
    access = AccessLog(str(path), format)
    for arguments in lines:
        access.line(*arguments)
    access.close()
    assert access.dropped == 0
    return path.read_text().splitlines()


def test_text_line_has_every_field(tmp_path):
    [line] = written(tmp_path, ("10.0.0.1:5", "POST", "/predictions/m", 200, 12, 0.02345, "id-1", TIMED))
    stamp, rest = line.split(" - ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert rest == (
        '10.0.0.1:5 "POST /predictions/m HTTP/1.1" 200 12 23.45 id-1'
        " queue=1.20 transfer=0.30 pre=1.00 infer=20.50 post=0.10 batch=4"
    )


def test_line_without_timings_or_id(tmp_path):
    [line] = written(tmp_path, ("c", "GET", "/ping", 200, 2, 0.001, ""))
    assert line.endswith(' - c "GET /ping HTTP/1.1" 200 2 1.00 -')


def test_json_line_is_json_with_every_field(tmp_path):
    one, two = written(
        tmp_path, ("c", "GET", '/a"\n%', 404, 0, 0.5, "r\\", TIMED), ("c", "GET", "/", 200, 0, 0, ""), format="json"
    )
    entry = json.loads(one)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "client": "c", "method": "GET", "path": '/a"\n%', "status": 404, "size": 0, "total_ms": 500.0,
        "request_id": "r\\", "queue_ms": 1.2, "transfer_ms": 0.3, "pre_ms": 1.0, "infer_ms": 20.5, "post_ms": 0.1,
        "batch": 4,
    }  # fmt: skip
    assert "queue_ms" not in json.loads(two)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a\n2026 - x", "/a\\n2026\\x20-\\x20x"),
        ('/" 200 0', '/\\"\\x20200\\x200'),
        ("/\x1b[31m\\", "/\\x1b[31m\\\\"),
        ("/é\udcff\u2028", "/\\xe9\\udcff\\u2028"),
        ("/%s%d", "/%s%d"),
    ],
)
def test_url_cannot_forge_lines_or_fields(tmp_path, path, shown):
    [by_path] = written(tmp_path, ("c", "GET", path, 200, 0, 0.0, "r"))
    assert f'"GET {shown} HTTP/1.1" 200 0 0.00 r' in by_path
    assert written(tmp_path, ("c", "GET", "/", 200, 0, 0.0, path))[-1].endswith(f" {shown}")


def test_every_line_before_close_is_written_in_order(tmp_path):
    lines = written(tmp_path, *(("c", "GET", f"/{number}", 200, 0, 0.0, "r") for number in range(5000)))
    assert [line.split('"')[1].split()[1] for line in lines] == [f"/{number}" for number in range(5000)]


def test_a_line_noted_while_the_writer_takes_all_others_does_not_stop_the_log(tmp_path, monkeypatch):
    class Preempted(list):
        """The event loop's thread is held up before it appends, until the writer has taken what is there."""

        def append(self, line):
            until = time.monotonic() + 30
            while self and time.monotonic() < until:
                time.sleep(0.001)
            super().append(line)

    started = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
        access = AccessLog(str(tmp_path / "a"))
    access._lines = Preempted()
    started[0].start()
    for number in range(3):
        access.line("c", "GET", f"/{number}", 200, 0, 0.0, "r")
    until = time.monotonic() + 30
    while len((tmp_path / "a").read_text().splitlines()) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert len((tmp_path / "a").read_text().splitlines()) == 3
    access.close()


def test_lines_of_two_threads_at_once_wake_the_writer():
    class Interrupted(list):
        """Another thread puts a line between the append and what follows it."""

        def append(self, line):
            super().append(line)
            if len(self) == 1:
                output.put("other\n")

    wake = threading.Event()
    output = Output(None, wake)
    output.lines = Interrupted()
    output.put("one\n")
    assert list(output.lines) == ["one\n", "other\n"]
    assert wake.is_set()


def test_off_opens_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    access = AccessLog("off")
    access.line("c", "GET", "/", 200, 0, 0.0, "r")
    access.close()
    assert not access.enabled
    assert list(tmp_path.iterdir()) == []


def test_dash_is_standard_error(capfd):
    access = AccessLog("-")
    access.line("c", "GET", "/", 200, 0, 0.0, "r")
    access.close()
    access.close()
    assert '"GET / HTTP/1.1"' in capfd.readouterr().err


def test_file_that_cannot_be_opened_fails_at_start(tmp_path):
    with pytest.raises(FileNotFoundError):
        AccessLog(str(tmp_path / "none" / "access.log"))


def test_full_disk_loses_lines_and_says_so(stderr):
    setup_logging()
    access = AccessLog("/dev/full")
    access.line("c", "GET", "/", 200, 0, 0.0, "r")
    access.close()
    assert access.dropped == 1
    assert "Cannot write the access log /dev/full: [Errno 28]" in stderr()


@pytest.fixture
def stuck(tmp_path):
    """An access log whose disk takes nothing more; and what reads all that it was given, once the log is closed."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    access = AccessLog(str(path))
    for _ in range(PIECE_LINES):  # a pipe holds 64 KiB
        access.line("c", "GET", "/" + "x" * 200, 200, 0, 0.0, "r")
    until = time.monotonic() + 30
    while not select.select([reader], [], [], 0)[0] and time.monotonic() < until:
        time.sleep(0.001)
    os.set_blocking(reader, True)

    def lines() -> list[str]:
        with open(reader) as file:
            closing = threading.Thread(target=access.close, args=(30,))
            closing.start()
            found = file.read().splitlines()
            closing.join()
        return found[PIECE_LINES:]

    return access, lines


def test_stuck_disk_costs_lines_not_memory(stuck):
    access, lines = stuck
    noted = PIECE_LINES * (MAX_PIECES + 5)
    for number in range(noted):
        access.line("c", "GET", f"/{number}", 200, 0, 0.0, "r")
    kept = [int(line.split('"')[1].split()[1][1:]) for line in lines()]
    assert 0 < access.dropped <= PIECE_LINES * 6
    assert len(kept) + access.dropped == noted
    assert kept == sorted(kept)


def test_lines_that_wait_keep_arenas_of_small_objects_for_good(stuck):
    access, lines = stuck
    before = sys.getallocatedblocks()
    for _ in range(50 * PIECE_LINES):
        access.line("c", "GET", "/", 200, 0, 0.0, "r")
    assert sys.getallocatedblocks() - before < 2 * PIECE_LINES
    assert len(lines()) == 50 * PIECE_LINES
    assert access.dropped == 0


def test_no_memory_for_lines_costs_requests(stuck, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    access, lines = stuck
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", full)
        for _ in range(2 * PIECE_LINES):
            access.line("c", "GET", "/lost", 200, 0, 0.0, "r")
    access.line("c", "GET", "/kept", 200, 0, 0.0, "r")
    assert PIECE_LINES <= access.dropped <= 2 * PIECE_LINES
    assert '"GET /kept HTTP/1.1"' in lines()[-1]


def test_piece_is_taken_again_while_it_is_freed():
    """It was a segmentation fault of the compiled build, in every run: see ``scripts/test-compiled``."""
    access = AccessLog(os.devnull)
    origin = access.origin("c", "GET", "/")
    for _ in range(300 * PIECE_LINES):
        access.note(origin, 200, 0, 0.0, 0.0, b"r")
    access.close()
    assert access.dropped < 300 * PIECE_LINES


def test_rotated_file_is_opened_anew(tmp_path):
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    path.rename(tmp_path / "access.log.1")
    access.reopen()
    access.line("c", "GET", "/", 200, 0, 0.0, "r")
    access.close()
    assert "GET /" in path.read_text()
    assert (tmp_path / "access.log.1").read_text() == ""


def test_text_log_line(stderr):
    setup_logging(LogSettings(level="info", format="text"))
    logging.getLogger("mlserve.core").info("model %s", "m")
    logging.getLogger("mlserve.core").debug("hidden")
    assert re.fullmatch(r"\S+Z \[INFO\] mlserve\.core: model m\n", stderr())


def test_json_log_line_holds_extras_and_traceback_on_one_line(stderr):
    setup_logging(LogSettings(level="debug", format="json"))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("mlserve").exception("failed", extra={"model": "m"})
    [line] = stderr().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"], entry["model"]) == ("error", "mlserve", "failed", "m")
    assert "ValueError: two\nlines" in entry["exception"]


def test_second_setup_does_not_double_the_lines(stderr):
    setup_logging(LogSettings(level="info"))
    setup_logging(LogSettings(level="warning"))
    logging.getLogger("mlserve.x").warning("once")
    logging.getLogger("mlserve.x").info("never")
    logging.getLogger("aiohttp.server").warning("heard")
    assert [line.rpartition(": ")[2] for line in stderr().splitlines()] == ["once", "heard"]
