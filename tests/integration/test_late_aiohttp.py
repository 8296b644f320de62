"""aiohttp is imported when somebody needs it: predictions do without, and who comes before it loses nothing."""

import contextlib
import signal
from pathlib import Path

import pytest
from support.raw import RawConnection, get, post
from support.server import launched, wait_ready

HANDLER = "def handle(data, context):\n    return data and ['ok'] * len(data)\n"
GATED = "import pathlib, time\nwhile not pathlib.Path({gate!r}).exists():\n    time.sleep(0.01)\n" + HANDLER


def models(folder):
    """A model that is ready at once, and one that takes until there is a file ``gate``: the server starts so long."""
    (folder / "model.py").write_text(HANDLER)
    (folder / "gated.py").write_text(GATED.format(gate=str(folder / "gate")))
    return "m=model.py", "gated=gated.py"


def has_aiohttp(server):
    """Whether one of its extension modules is in the process."""
    return "aiohttp" in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_predictions_and_probes_do_without_it_and_management_works_right_after(tmp_path):
    with launched(tmp_path, *models(tmp_path)) as server:
        wait_ready(server, "starting")
        server.wait_for(lambda: server.predict("m").status == 200)
        assert server.request("GET", "/ping").status == 500
        assert server.predict("unknown").status == 404
        assert not has_aiohttp(server)
        assert server.describe("m")["modelName"] == "m"
        assert has_aiohttp(server)
        (tmp_path / "gate").touch()
        wait_ready(server)
        assert server.request("GET", "/ping").json() == {"status": "Healthy"}
        assert server.stop() == 0


def test_it_comes_by_itself_when_nobody_has_asked(tmp_path):
    (tmp_path / "model.py").write_text(HANDLER)
    with launched(tmp_path, "m=model.py") as server:
        wait_ready(server)
        server.wait_for(lambda: has_aiohttp(server))
        assert server.stop() == 0


def test_many_that_come_at_once_are_all_answered(tmp_path):
    with launched(tmp_path, *models(tmp_path), settings={"SERVER_MAX_CONNECTIONS": "8"}) as server:
        wait_ready(server, "starting")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(RawConnection(server.port("management"))) for _ in range(8)]
            for client in clients:
                client.send(get("/models")[:7])
            turned_away = stack.enter_context(RawConnection(server.port("management")))
            refused = turned_away.answer()
            assert refused is not None
            assert refused.status == 503
            for client in clients:
                client.send(get("/models")[7:])
                answer = client.answer()
                assert answer is not None
                assert answer.status == 200
            server.wait_for(lambda: server.predict("m").status == 200)
            # a connection of the fast lane that turns to something else, in the middle of pipelined requests
            both = stack.enter_context(RawConnection(server.port()))
            both.send(post("/predictions/m", b"x") + get("/api-description") + post("/predictions/m", b"y" * 300_000))
            assert [both.answer().status for _ in range(3)] == [200, 200, 200]
        server.signal()
        assert server.wait() == 0


@pytest.mark.parametrize("moment", ["starting", "ready"])
def test_requests_that_came_before_it_are_answered_when_the_server_stops(tmp_path, moment):
    if moment == "ready":
        (tmp_path / "gate").touch()
    with launched(tmp_path, *models(tmp_path)) as server:
        wait_ready(server, moment)
        with RawConnection(server.port("management")) as manage, RawConnection(server.port()) as other:
            manage.send(get("/models"))
            other.send(get("/api-description"))
            server.signal(signal.SIGTERM)
            for client in (manage, other):
                answer = client.answer()
                assert answer is not None
                assert answer.status == 200
                assert answer.headers["connection"] == "close"
        assert server.wait() == 0
        server.check_nothing_left()


def test_server_without_a_fast_lane_has_it_before_it_listens(tmp_path):
    settings = {"SERVER_FAST_LANE": "false"}
    with launched(tmp_path, *models(tmp_path), settings=settings) as server:
        wait_ready(server, "starting")
        assert has_aiohttp(server)
        server.signal()
        assert server.wait() == 0
