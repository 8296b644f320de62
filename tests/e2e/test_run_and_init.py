"""``mlserve run`` and ``mlserve init`` as a handler author uses them: as commands, in fresh processes."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

RAISES = """
import mlserve.handler

def helper(row):
    return {}["missing key"]

class Handler:
    def initialize(self, context):
        pass
    def handle(self, data, context):
        return [helper(row) for row in data]
"""


def mlserve(*arguments, cwd, stdin=""):
    command = [sys.executable, "-m", "mlserve", *map(str, arguments)]
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=120, env=environ)


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def scaffold(tmp_path):
    """Of a handler alone; the kinds that need a library are in tests/models/test_init.py."""
    done = mlserve("init", "my-model", "--kind", "custom", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "my-model"


def test_the_scaffolded_tests_pass_as_they_are(scaffold):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(command, cwd=scaffold, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_scaffold_runs_from_its_folder_its_file_and_its_archive(scaffold):
    subprocess.run(["bash", "-n", scaffold / "pack.sh"], check=True)
    archive = ["archive", "--model-name", "my-model", "--version", "1.0", "--handler", "handler.py"]
    assert mlserve(*archive, "--config-file", "model-config.yaml", cwd=scaffold).returncode == 0
    for target in (".", "handler.py", "my-model.mar"):
        done = mlserve("run", target, "-d", '{"text": "a b c"}', cwd=scaffold)
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)) == {"words"}
        assert "preprocess" in done.stderr


def test_init_does_not_overwrite(scaffold, tmp_path):
    write(scaffold / "handler.py", "mine")
    done = mlserve("init", "my-model", cwd=tmp_path)
    assert done.returncode == 1
    assert "handler.py" in done.stderr
    assert (scaffold / "handler.py").read_text() == "mine"


def test_a_failing_handler_shows_its_own_frames_and_nothing_of_the_server(tmp_path):
    write(tmp_path / "handler.py", RAISES)
    done = mlserve("run", "handler.py", "-d", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "KeyError: 'missing key'" in done.stderr
    assert 'return {}["missing key"]' in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "worker" not in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import not_there_at_all\ndef handle(data, context): pass\n", "No module named 'not_there_at_all'"),
        ("def handle(:\n", "SyntaxError"),
        ("x = 1\n", "no function handle"),
        (
            "class H:\n  def initialize(self, c): raise OSError('no weights')\n  def handle(self, d, c): pass",
            "no weights",
        ),
    ],
)
def test_a_handler_that_cannot_be_loaded_says_why(tmp_path, text, expected):
    write(tmp_path / "handler.py", text)
    done = mlserve("run", "handler.py", "-d", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "mlserve/worker" not in done.stderr


def test_breakpoints_stop_at_the_terminal(tmp_path):
    write(
        tmp_path / "handler.py",
        "def handle(data, context):\n    answer = 'pdb was here'\n    breakpoint()\n    return data and [answer]\n",
    )
    done = mlserve("run", "handler.py", "-d", "1", cwd=tmp_path, stdin="c\np len(data) + 40\nanswer = 'changed'\nc\n")
    assert done.returncode == 0, done.stderr
    assert "41" in done.stdout
    assert done.stdout.rstrip().endswith("changed")


def test_rows_are_what_a_server_hands_over(tmp_path):
    write(tmp_path / "handler.py", "def handle(data, context):\n    return data and [repr(row) for row in data]\n")
    for name, content in {"a.json": '{"x": 1}', "b.txt": "text", "c.jpg": "raw"}.items():
        write(tmp_path / name, content)
    done = mlserve("run", "handler.py", "-i", "a.json", "-i", "b.txt", "-i", "c.jpg", "--batch", "4", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "{'body': {'x': 1}}",
        "{'body': 'text'}",
        "{'body': bytearray(b'raw')}",
        "{'body': {'x': 1}}",
    ]
    done = mlserve("run", "handler.py", "-i", "a.json", "--content-type", "text/plain", cwd=tmp_path)
    assert done.stdout.strip() == """{'body': '{"x": 1}'}"""


def test_one_refused_item_makes_the_exit_code_1_and_the_others_are_shown(tmp_path):
    code = (
        "from mlserve.handler import PredictionError\n"
        "def handle(data, context):\n"
        "    return data and [row['body'] if row['body'] > 1 else PredictionError(418, 'too small') for row in data]\n"
    )
    write(tmp_path / "handler.py", code)
    for value in (1, 2):
        write(tmp_path / f"{value}.json", str(value))
    done = mlserve("run", "handler.py", "-i", "1.json", "-i", "2.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "request 0: refused with status 418: too small" in done.stderr
    assert done.stdout == "2\n"


def test_streams_and_coroutines_answer_too(tmp_path):
    code = "async def handle(data, context):\n    return data and [(piece for piece in ['one ', 'two'])]\n"
    write(tmp_path / "handler.py", code)
    done = mlserve("run", "handler.py", "-d", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "one two"


def test_repeat_tells_the_first_batch_from_the_others(tmp_path):
    write(tmp_path / "handler.py", "def handle(data, context):\n    return data\n")
    done = mlserve("run", "handler.py", "-d", "[1]", "--repeat", "5", cwd=tmp_path)
    assert "first one request, ms:" in done.stderr
    assert "median of the other 4:" in done.stderr


def test_wrong_use_is_said_before_anything_is_loaded(tmp_path):
    write(tmp_path / "handler.py", "raise SystemExit('was loaded')\n")
    for arguments in ([], ["-d", "1", "-i", "handler.py"]):
        done = mlserve("run", "handler.py", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "--input FILE" in done.stderr
    done = mlserve("run", "nothing-there", "-d", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing-there" in done.stderr
    done = mlserve("run", "handler.py", "-i", "gone.jpg", cwd=tmp_path)
    assert done.returncode == 2
    assert "gone.jpg" in done.stderr


def test_an_archive_leaves_nothing_behind(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr("handler.py", "def handle(data, context):\n    return data\n")
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    command = [sys.executable, "-m", "mlserve", "run", "m.mar", "-d", '{"a": 1}']
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ, "TMPDIR": str(scratch)}
    )
    assert done.returncode == 0, done.stderr
    assert list(scratch.iterdir()) == []


def test_a_handler_without_torch_runs_where_torch_is_missing(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from mlserve.handler import Context\n"
        "from mlserve.handlers.base import BaseHandler\n"
        "class Plain(BaseHandler):\n"
        "    def initialize(self, context): self.context = context\n"
        "    def preprocess(self, data): return [row['body'] for row in data]\n"
        "    def inference(self, data): return data\n"
        "    def postprocess(self, data): return data\n"
        "handler, context = Plain(), Context('m', '')\n"
        "handler.initialize(context)\n"
        "assert handler.handle([{'body': 5}], context) == [5]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
