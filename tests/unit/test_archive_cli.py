"""``mlserve archive``: torch-model-archiver's flags, the commands beside it, exit codes and one-line errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mlserve.cli.archive import _lines, app


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    (tmp_path / "handler.py").write_text("def handle(data, context): return data\n")
    (tmp_path / "model-config.yaml").write_text("batchSize: 4\n")
    (tmp_path / "req.txt").write_text("numpy\n")
    (tmp_path / "w.pt").write_text("w")
    return tmp_path


def call(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


PACK = "--model-name m --version 1.0 --handler handler.py"


def test_every_flag_of_the_archiver(source: Path) -> None:
    (source / "out").mkdir()
    call(
        "--model-name m --version 1.0 --model-file handler.py --serialized-file w.pt --handler handler:handle"
        " --extra-files req.txt --runtime python3 --export-path out --archive-format tgz --force"
        " --requirements-file req.txt --config-file model-config.yaml"
    )
    info = json.loads(call("inspect --json out/m.tar.gz").stdout)
    assert info["kind"] == "tgz"
    assert info["manifest"]["runtime"] == "python3"
    assert info["manifest"]["model"] == {
        "modelName": "m",
        "serializedFile": "w.pt",
        "handler": "handler:handle",
        "modelFile": "handler.py",
        "modelVersion": "1.0",
        "requirementsFile": "req.txt",
        "configFile": "model-config.yaml",
    }


def test_short_flags_and_json(source: Path) -> None:
    call(PACK)
    result = call("--model-name m -v 1.0 --handler handler.py -r req.txt -c model-config.yaml -f --json")
    packed = json.loads(result.stdout)
    assert packed["path"] == "m.mar"
    assert packed["bytes"] == (source / "m.mar").stat().st_size
    assert len(packed["sha256"]) == 64


def test_works_mounted_below_another_command(source: Path) -> None:
    root = typer.Typer()
    root.add_typer(app, name="archive")
    runner = CliRunner()
    assert runner.invoke(root, ["archive", *PACK.split()]).exit_code == 0
    assert runner.invoke(root, ["archive", "verify", "m.mar"]).exit_code == 0
    assert runner.invoke(root, ["archive"]).exit_code == 2


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--model-name m",
        "--model-name m --version 1",
        f"{PACK} --archive-format rar",
        f"{PACK} --runtime perl",
        f"{PACK} --nonsense",
        "--model-name m inspect m.mar",
        "--json inspect m.mar",
        "inspect",
        "unpack m.mar",
        "diff m.mar",
    ],
)
def test_wrong_usage_exits_with_2(source: Path, line: str) -> None:
    call(line, 2)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (PACK, "--force"),
        (f"{PACK} -f --handler gone.py", "gone.py"),
        (f"{PACK} -f --extra-files gone.txt", "gone.txt"),
        (f"{PACK} --export-path gone", "gone"),
        ("inspect gone.mar", "gone.mar"),
        ("verify gone.mar", "gone.mar"),
        ("diff m.mar gone.mar", "gone.mar"),
        ("unpack m.mar .", "not empty"),
    ],
)
def test_failure_is_one_line_and_exits_with_1(source: Path, line: str, text: str) -> None:
    call(PACK)
    result = call(line, 1)
    assert result.stdout == ""
    assert text in result.stderr
    assert result.stderr.startswith("mlserve archive: error: ")
    assert result.stderr.count("\n") == 1


def test_verify_and_diff_answer_by_exit_code(source: Path) -> None:
    call(PACK)
    assert "OK" in call("verify m.mar").stdout
    assert json.loads(call("verify --json m.mar").stdout)["ok"] is True
    assert "same" in call("diff m.mar m.mar").stdout
    (source / "m.mar").rename("a.mar")
    call(f"{PACK} --serialized-file w.pt")
    assert "+ w.pt" in call("diff a.mar m.mar", 1).stdout
    assert json.loads(call("diff --json a.mar m.mar", 1).stdout)["same"] is False
    Path("m.mar").write_bytes(Path("m.mar").read_bytes()[:-30])
    assert "m.mar" in call("verify m.mar", 1).stdout
    assert json.loads(call("verify --json m.mar", 1).stdout)["problems"]


def test_unpack(source: Path) -> None:
    call(PACK)
    assert json.loads(call("unpack --json m.mar there").stdout) == {"path": "there", "files": 2}
    assert (source / "there" / "handler.py").is_file()


def test_inspect_shows_the_code_that_runs(source: Path) -> None:
    call(f"{PACK}:handle -c model-config.yaml -r req.txt")
    shown = call("inspect m.mar").stdout
    for text in ("handler.py in the archive", "numpy", '"batchSize": 4', '"modelName": "m"', "MAR-INF/MANIFEST.json"):
        assert text in shown
    call("--model-name b -v 1 --handler image_classifier")
    assert "built into mlserve" in call("inspect b.mar").stdout


@pytest.mark.parametrize("command", ["", "inspect", "verify", "unpack", "diff"])
def test_help_tells_the_exit_codes(command: str) -> None:
    assert "Exit codes" in " ".join(call(f"{command} --help").stdout.split())


def test_text_of_an_archive_cannot_move_the_cursor(source: Path) -> None:
    import zipfile

    manifest = {"runtime": "python", "model": {"modelName": "m\x1b[2J", "modelVersion": "1", "handler": "h\x1b[2J"}}
    with zipfile.ZipFile("evil.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    assert "\x1b" not in call("inspect evil.mar").output
    assert "\x1b" not in call("verify evil.mar", 1).output


def test_a_long_job_prints_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 1.0, 11.0, 11.0, 12.0])
    progress = _lines("m", lambda: next(times))
    for done in (10, 50, 60):
        progress("w.pt", done, 100)
    assert capsys.readouterr().err == "packing m: 50% (w.pt)\n"


def test_importing_the_command_is_cheap() -> None:
    code = "import sys, mlserve.cli.archive; print(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"rich", "yaml", "aiohttp", "zipfile", "tarfile", "mlserve.archive"} & set(out.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("batchPolicy: adptive", "batchPolicy must be 'adaptive', 'bucket', 'eager' or 'window', got 'adptive'"),
        ("latencyTarget: 50ms", "latencyTarget must be milliseconds, 0 or more, got '50ms'"),
        ("batch_policy: 3", "batch_policy must be 'adaptive', 'bucket', 'eager' or 'window', got 3"),
        ("handlerThreads: 0", "handlerThreads must be an integer of 1 or more, got 0"),
        ("handlerThreads: 2\npreprocessThreads: 1", "handlerThreads 2 cannot go with preprocessThreads 1"),
        ("batchPolicy: [", "is not valid YAML"),
    ],
)
def test_a_setting_that_no_server_would_take_is_not_packed(source: Path, line: str, words: str) -> None:
    (source / "bad.yaml").write_text(f"batchSize: 4\n{line}\n")
    result = call(f"{PACK} -c bad.yaml", 1)
    assert result.stderr.startswith("mlserve archive: error: bad.yaml")
    assert words in result.stderr
    assert not (source / "m.mar").exists()


def test_what_torchserve_packs_is_packed_and_what_is_odd_in_it_is_said(source: Path) -> None:
    (source / "odd.yaml").write_text("batchSize: many\nbatchPolcy: eager\nmodel: {any: thing}\nhandlerThreads: 2\n")
    result = call(f"{PACK} -c odd.yaml")
    assert (source / "m.mar").exists()
    assert result.stderr.splitlines() == [
        "mlserve archive: warning: odd.yaml: nothing here reads batchPolcy; did you mean batchPolicy? "
        "Only the handler sees it",
        "mlserve archive: warning: odd.yaml: batchSize must be an integer of 1 or more, got 'many'; "
        "a server will ignore it",
    ]
    (source / "plain.yaml").write_text("deviceType: GPU\nmaxWorkers: 0\nparallelType: PP\nhandler: {topk: 3}\n")
    assert call(f"{PACK} -c plain.yaml -f").stderr == ""
