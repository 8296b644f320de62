"""The shell around the verbs, and the flags made from the settings tree."""

import json
import sys
import types
from pathlib import Path

import pytest
import typer

from mlserve import __version__
from mlserve.build import described
from mlserve.cli import app, flags
from mlserve.errors import ServeError, SettingError
from mlserve.settings import all_options


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """No settings file and no variables of the machine that runs the tests."""
    monkeypatch.chdir(tmp_path)
    for item in all_options():
        monkeypatch.delenv(item.env, raising=False)
    monkeypatch.delenv("MLSERVE_CONFIG", raising=False)


@pytest.fixture
def verb(monkeypatch):
    """Makes a function the verb ``predict``."""

    def install(function):
        module = types.ModuleType("tests_fake_verb")
        module.verb = function
        monkeypatch.setitem(sys.modules, "tests_fake_verb", module)
        monkeypatch.setitem(app.VERBS, "predict", ("tests_fake_verb:verb", "A verb."))

    return install


def raising(error: BaseException):
    def verb() -> None:
        raise error

    return verb


def test_version(capsys):
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"mlserve {__version__}, {described()}\n"


def test_help_lists_every_verb_and_imports_none(capsys, monkeypatch):
    monkeypatch.setattr(app, "_load", lambda verb: pytest.fail(f"{verb} was loaded"))
    assert app.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in app.VERBS)


def test_verb_that_cannot_be_imported_does_not_break_the_others(capsys, monkeypatch):
    monkeypatch.setitem(app.VERBS, "init", ("mlserve.cli.not_there:init", "Broken."))
    assert app.run(["config", "reference"]) == 0
    with pytest.raises(ModuleNotFoundError):
        app.run(["init"])


def test_every_verb_can_be_loaded_and_has_help(capsys):
    for name in app.VERBS:
        assert app.run([name, "--help"]) == 0, name
        assert f"mlserve {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["strat"], ["config", "show", "--nope"], ["start", "--inference-port"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    assert app.run(arguments) == 2


class Unreachable(ServeError):
    exit_code = 3


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SettingError("f.toml:1: wrong"), 2, "mlserve: error: f.toml:1: wrong\n"),
        (ServeError("it failed"), 1, "mlserve: error: it failed\n"),
        (Unreachable("nobody there"), 3, "mlserve: error: nobody there\n"),
        (FileNotFoundError(2, "No such file", "x"), 1, "mlserve: error: [Errno 2] No such file: 'x'\n"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Exit(4), 4, ""),
    ],
)
def test_failure_is_one_line_and_its_exit_code(verb, capsys, error, code, line):
    verb(raising(error))
    assert app.run(["predict"]) == code
    assert capsys.readouterr().err.strip() == line.strip()


def test_bug_is_not_hidden_behind_an_exit_code(verb):
    verb(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        app.run(["predict"])


def shown(capsys, *arguments: str) -> dict[str, tuple[object, str]]:
    assert app.run(["config", "show", "--json", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    return {key: (entry["value"], entry["source"]) for key, entry in document["settings"].items()}


def test_config_show_has_every_setting_with_its_source(capsys, tmp_path, monkeypatch):
    (tmp_path / "mlserve.toml").write_text("[defaults]\nworkers = 2\n[model.m]\nbatch_size = 3\n")
    monkeypatch.setenv("MLSERVE_LOG_LEVEL", "debug")
    settings = shown(capsys, "--batch-size", "4", "--no-insecure", "--gpus=none")
    assert {item.key for item in all_options()} <= set(settings)
    assert settings["defaults.workers"] == (2, "mlserve.toml:2")
    assert settings["model.m.batch_size"] == (3, "mlserve.toml:4")
    assert settings["log.level"] == ("debug", "env MLSERVE_LOG_LEVEL")
    assert settings["defaults.batch_size"] == (4, "flag --batch-size")
    assert settings["server.insecure"] == (False, "flag --insecure")
    assert settings["gpu.ids"] == ([], "flag --gpus")
    assert settings["server.host"] == ("127.0.0.1", "default")


def test_config_show_without_a_terminal_is_aligned_plain_lines(capsys):
    assert app.run(["config", "show", "--host", "::1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(all_options()))
    assert lines[0].split() == ["server.host", "::1", "flag", "--host"]
    assert len({line.rindex("default") for line in lines[1:]}) == 1


def test_torchserve_file_is_chosen_by_its_extension(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("STORE", "/m")
    path = tmp_path / "config.properties"
    path.write_text("# c\nmodel_store=$$STORE$$\nio_ratio=true\n")
    assert shown(capsys, "--ts-config", str(path))["models.store"] == ("/m", "config.properties:2")
    app.run(["config", "show", "--config", str(path)])
    assert "note: config.properties:3: io_ratio is accepted and ignored" in capsys.readouterr().err


def test_broken_torchserve_file_is_a_setting_error(capsys, tmp_path):
    (tmp_path / "c.properties").write_text("model_store=$$NOT_SET$$\n")
    assert app.run(["config", "show", "--config", "c.properties"]) == 2
    assert "mlserve: error: c.properties:1: model_store: the environment variable" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--models", "a.mar", "n=b.mar"],
        ["--models=a.mar", "--models", "n=b.mar"],
        ["--models", "a.mar,n=b.mar"],
        ["a.mar", "n=b.mar"],
    ],
)
def test_models_may_be_given_in_every_way_scripts_do(capsys, arguments):
    assert shown(capsys, *arguments)["models.load"] == (["a.mar", "n=b.mar"], "flag --models")


def test_every_flag_of_the_tree_reaches_its_setting(capsys):
    samples = {"int": "1", "float": "1.5", "text": "x", "texts": "x", "gpu_ids": "1"}
    for item in all_options():
        if item.flag:
            text = item.choices[-1] if item.choices else samples.get(item.kind, "")
            arguments = [item.flag] if item.kind == "bool" else [f"{item.flag}={text}"]
            assert shown(capsys, *arguments)[item.key][1] == f"flag {item.flag}"


def test_arguments_for_another_process_mean_the_same():
    given = {"server.insecure": False, "models.keep_going": True, "models.load": "a=b.mar,c", "gpu.ids": "0,1"}
    arguments = flags.as_arguments(flags.CommandLine(flags=given))
    assert arguments == ["--no-insecure", "--keep-going", "--models=a=b.mar,c", "--gpus=0,1"]
    named = flags.CommandLine(Path("f.toml"), profile="torchserve")
    assert flags.as_arguments(named) == ["--config=f.toml", "--profile=torchserve"]
    assert flags.as_arguments(flags.CommandLine(ts_config=Path("f.cfg"))) == ["--ts-config=f.cfg"]
