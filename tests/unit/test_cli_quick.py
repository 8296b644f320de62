"""``mlserve start`` is read in two ways, without typer and with it: what was told must be the same in both."""

import json
import subprocess
import sys

import pytest

from mlserve.cli import app, quick
from mlserve.settings import all_options

PLAIN = [
    [],
    ["--models", "a"],
    ["--models", "a", "b.mar", "c=d.mar", "--batch-size", "3"],
    ["x.mar", "--models=a=b.mar,c", "--models", "d", "y.mar"],
    ["--inference-port=1", "--host", "0.0.0.0", "--host", "::1"],
    ["--no-grpc", "--grpc", "--insecure"],
    ["--config", "a.toml"],
    ["--ts-config=config.properties", "--profile", "torchserve"],
    ["--log-file", "x.log", "--events-fd", "7"],
    ["-d", "--log-file=x.log"],
    ["--detach", "--pid-file="],
]
FOR_TYPER = [
    ["--help"],
    ["-h"],
    ["--batch-sise", "3"],
    ["--batch-size"],
    ["--batch-size", "-3"],
    ["--batch-size", "--models", "a"],
    ["--insecure=yes"],
    ["--detach=yes"],
    ["-dx"],
    ["--"],
    ["", "a"],
    ["--log-file", "x.log"],
    ["--events-fd", "one"],
]
EVERY = [[item.flag] if item.kind == "bool" else [item.flag, "1"] for item in all_options() if item.flag]


@pytest.fixture
def typers(monkeypatch):
    """What typer makes of a command line."""
    told = []
    monkeypatch.setattr("mlserve.cli.serve.carry_out", lambda start, settings: told.append(start) or 0)
    monkeypatch.setattr("mlserve.cli.flags.read_settings", lambda line: None)

    def read(arguments):
        assert app.run(["start", *arguments]) == 0
        return told.pop()

    return read


@pytest.mark.parametrize("arguments", PLAIN, ids=" ".join)
def test_plain_command_line_means_what_typer_makes_of_it(arguments, typers):
    assert quick.read(arguments) == typers(arguments)


def test_every_flag_means_what_typer_makes_of_it(typers):
    arguments = [word for words in EVERY for word in words]
    assert quick.read(arguments) == typers(arguments)
    turned_off = [item.flag.replace("--", "--no-", 1) for item in all_options() if item.flag and item.kind == "bool"]
    assert quick.read(turned_off) == typers(turned_off)


@pytest.mark.parametrize("arguments", FOR_TYPER, ids=" ".join)
def test_mistake_is_left_to_typer(arguments):
    assert quick.read(arguments) is None


def test_completion_is_left_to_typer(monkeypatch):
    monkeypatch.setenv("_MLSERVE_COMPLETE", "complete_bash")
    assert quick.read([]) is None


def test_server_does_not_keep_typer_and_pydantic(tmp_path):
    code = """
import json, sys, types
server = types.ModuleType("mlserve.server")
server.MODEL_FAILED = 4
server.run = lambda settings, progress, begun: print(json.dumps(sorted(sys.modules))) or 0
sys.modules["mlserve.server"] = server
from mlserve.cli import main
main(["start", "--pid-file", "pid", "--models", "a"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {"typer", "click", "pydantic", "rich"} & set(json.loads(done.stdout))
