"""Tokens on a running server: every door asks for the right one, and the file lives as long as the server."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from support.server import LiveServer, Reply, running

REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
HANDLER = Path(__file__).parents[1] / "conformance" / "handlers" / "mirror.py"


def ask(server: LiveServer, path: str, key: str, api: str = "inference", method: str = "GET") -> Reply:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return server.request(method, path, headers=headers, api=api)


def test_doors_let_in_whoever_has_no_token_and_the_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    with running(tmp_path, f"mirror={HANDLER}", settings={"AUTH_TOKENS": "true"}) as server:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        keys = {name: entry["key"] for name, entry in json.loads(file.read_text()).items()}
        doors = [
            ("/predictions/mirror", "inference", "POST"),
            ("/explanations/mirror", "inference", "POST"),
            ("/ping", "inference", "GET"),
            ("/nope", "inference", "GET"),
            ("/models", "management", "GET"),
            ("/models/mirror", "management", "DELETE"),
            ("/nope", "management", "GET"),
        ]
        for path, api, method in doors:
            others = [key for name, key in keys.items() if name != api]
            for key in ["", "abcd1234", keys[api][:-1], *others]:
                reply = ask(server, path, key, api, method)
                assert (reply.status, *reply.error()[1:]) == (400, "InvalidKeyException", REFUSED), (path, api)
        assert ask(server, "/predictions/mirror", keys["inference"], method="POST").status == 200
        assert ask(server, "/ping", keys["inference"]).status == 200
        assert ask(server, "/nope", keys["inference"]).status == 404
        assert ask(server, "/models", keys["management"], "management").status == 200
        assert ask(server, "/metrics", "", "metrics").status == 200
        for api in ("inference", "management"):
            assert ask(server, "/api-description", "", api).status == 200

        reply = ask(server, "/token?type=inference", keys["API"], "management")
        assert (reply.status, reply.body) == (200, b"\n")
        new = json.loads(file.read_text())["inference"]["key"]
        assert ask(server, "/predictions/mirror", keys["inference"], method="POST").status == 400
        assert ask(server, "/predictions/mirror", new, method="POST").status == 200
        log = server.log_text()
        assert not any(key in log for key in [*keys.values(), new])
    assert not file.exists()


def test_token_does_not_expire(tmp_path: Path) -> None:
    settings = {"AUTH_TOKENS": "true", "AUTH_TOKEN_EXPIRATION_MIN": "0.001", "SERVER_HTTP_STYLE": "torchserve"}
    with running(tmp_path, settings=settings) as server:
        key = json.loads((tmp_path / "key_file.json").read_text())["inference"]["key"]
        server.wait_for(lambda: ask(server, "/ping", key).status == 400)
