"""``mlserve validate`` passes what is right and finds what a single request would not show."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

HANDLERS = {
    "right": "def handle(data, context):\n    return [{'y': row['body']['x'] * 2} for row in data or []]\n",
    # As a handler that normalises over the batch: every answer is fine alone, and wrong in company.
    "leaky": "def handle(data, context):\n    rows = [row['body']['x'] for row in data or []]\n"
    "    return [{'y': x / max(rows)} for x in rows]\n",
    "short": "def handle(data, context):\n    return [{'y': 1}] if data else []\n",
    "fails": "def handle(data, context):\n    if data:\n        raise RuntimeError('no such luck')\n    return []\n",
    "broken": "import no_such_module_anywhere\n",
    "dies": "import os\ndef handle(data, context):\n    if data and len(data) > 1:\n        os._exit(9)\n"
    "    return [{'y': 1} for row in data or []]\n",
}


def validate(folder, name, *arguments, inputs=("1", "4")):
    (folder / f"{name}.py").write_text(HANDLERS[name])
    given = []
    for index, value in enumerate(inputs):
        (folder / f"{index}.json").write_text(f'{{"x": {value}}}')
        given += ["--input", str(folder / f"{index}.json")]
    line = [sys.executable, "-m", "mlserve", "validate", f"{name}.py", "--batch-size", "4", *given, *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_right_model_passes_in_every_batch_size(tmp_path):
    (tmp_path / "expect").write_text('{"y": 2}')
    (tmp_path / "other").write_text('{"y": 8.00001}')
    code, said = validate(tmp_path, "right", "--expect", "expect", "--expect", "other", "--junit", "out.xml")
    assert code == 0, said
    for name in ("load", "batch of 1", "batch of 2", "batch of 4 agrees with single items", "input 1 has the expected"):
        assert f"ok      {name}" in said
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("8", "0")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leaky", "agrees with single items: item 0 differs at $.y"),
        ("short", "batch of 2"),
        ("fails", "no such luck"),
        ("broken", "no_such_module_anywhere"),
        ("dies", "Worker died"),
    ],
)
def test_what_only_shows_in_a_worker_or_in_company_is_found(tmp_path, name, said):
    code, output = validate(tmp_path, name, "--junit", "out.xml")
    assert code == 1, output
    assert said in "\n".join(line for line in output.splitlines() if not line.startswith("ok"))
    assert int(ElementTree.parse(tmp_path / "out.xml").getroot().get("failures")) > 0


def test_a_wrong_answer_is_shown_beside_where_it_differs(tmp_path):
    (tmp_path / "expect").write_text('{"y": 3}')
    code, said = validate(tmp_path, "right", "--expect", "expect", inputs=("1",))
    assert code == 1
    assert "input 0 has the expected answer: differs at $.y by 0.333" in said


def test_the_number_of_expected_files_must_be_that_of_the_inputs(tmp_path):
    (tmp_path / "expect").write_text("1")
    code, said = validate(tmp_path, "right", "--expect", "expect")
    assert code == 2
    assert "1 files to expect for 2 inputs" in said
