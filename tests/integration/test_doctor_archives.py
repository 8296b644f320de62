"""The doctor on a whole model store: what loads, what is missing, and why, without the noise of the loading itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.drop_in import NOOP, archive

from mlserve.archive.packing import pack_workflow
from mlserve.cli import app

WORKFLOW = "models:\n  m1:\n    url: good.mar\n  m2:\n    url: {second}\ndag:\n  pre: [m1]\n  m1: [m2]\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    good = archive(
        directory, "good", NOOP, model_config__yaml="batchSize: '4'\n", model={"configFile": "model_config.yaml"}
    )
    archive(directory, "missing", "import no_such_library\n" + NOOP)
    archive(directory, "raises", "def handle(data, context):\n    raise RuntimeError('no weights')\n")
    archive(
        directory,
        "reqs",
        "import no_such_requirement\n" + NOOP,
        requirements__txt="no_such_requirement\n",
        model={"requirementsFile": "requirements.txt"},
    )
    (directory / "corrupt.mar").write_bytes(good.read_bytes()[:300])
    for name, second in (("flow", "good.mar"), ("broken", "gone.mar")):
        (tmp_path / f"{name}.yaml").write_text(WORKFLOW.format(second=second))
        (tmp_path / f"{name}.py").write_text("def pre(data, context):\n    return data\n")
        files = {"spec_file": tmp_path / f"{name}.yaml", "handler": tmp_path / f"{name}.py"}
        pack_workflow(workflow_name=name, export_path=directory, **files)
    return directory


def test_what_does_not_load_is_named_with_its_reason_and_nothing_else_is_printed(
    store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    (store.parent / "config.properties").write_text("number_of_gpu=0\n")
    assert app.run(["doctor", "--torchserve", "config.properties", "--model-store", str(store), "--json"]) == 1
    out, err = capfd.readouterr()
    assert err.strip() == ("To solve before the switch: broken.war, corrupt.mar, missing.mar, raises.mar, reqs.mar")
    found: dict[str, list[tuple[str, str, str]]] = {}
    for item in json.loads(out)["Archives"]:
        found.setdefault(item["about"].split()[0], []).append((item["level"], item["text"], item["detail"]))
    (ok, loads, _), (changed, remark, _) = found["good.mar"]
    assert (ok, changed) == ("ok", "changed")
    assert loads.startswith("loads as good:1.0 in ")
    assert "batchSize must be an integer of 1 or more, got '4'; ignored" in remark
    assert found["corrupt.mar"] == [("failed", "Archive corrupt.mar is a truncated or damaged zip file", "")]
    assert [(level, text) for level, text, _ in found["missing.mar"]] == [
        ("missing", "imports no_such_library, and it is not installed"),
        ("failed", "does not load without no_such_library"),
    ]
    assert [(level, text) for level, text, _ in found["reqs.mar"]] == [
        ("missing", "imports no_such_requirement, and it is not installed"),
        ("changed", "its requirements.txt is not installed, as install_py_dep_per_model is not true"),
        ("failed", "does not load without no_such_requirement"),
    ]
    ((level, text, detail),) = found["raises.mar"]
    assert (level, "RuntimeError: no weights" in text) == ("failed", True)
    assert detail.lstrip().startswith('File "raises.mar/raises_handler.py", line 2')
    assert found["flow.war"] == [
        ("ok", "workflow flow of pre (function), m1 (good.mar), m2 (good.mar); register it with POST /workflows", "")
    ]
    ((level, text, _),) = found["broken.war"]
    assert (level, text) == ("failed", f"its node m2 is gone.mar, which is not in {store}")


def test_a_model_store_that_is_not_there_is_not_called_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.properties").write_text(f"model_store={tmp_path / 'typo'}\n")
    code = app.run(["doctor", "--torchserve", str(tmp_path / "config.properties"), "--no-differences"])
    assert code == 1
    assert "the model store is no directory" in capsys.readouterr().out
