"""What the doctor says about settings files and handler files, without loading anything."""

from __future__ import annotations

from pathlib import Path

from mlserve.cli.checkup import settings_findings
from mlserve.cli.checkup_archives import import_findings
from mlserve.cli.sources import read_torchserve_settings
from mlserve.compat.differences import DIFFERENCES
from mlserve.settings.properties import read_properties

CONFIG = """\
inference_address=http://127.0.0.1:9080
number_of_netty_threads=8
metrics_mode=prometheus
keystore_pass=secret
invented=1
default_response_timeout=
models={"a":{"1.0":{"batchSize":4}}}
"""


def test_every_line_of_the_file_is_accounted_for_and_no_password_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "config.properties"
    path.write_text(CONFIG.replace("default_response_timeout=\n", ""))
    environ = {"LOG_LOCATION": str(tmp_path / "logs")}
    settings = read_torchserve_settings(ts_config=path, model_store=str(tmp_path), environ=environ, directory=tmp_path)
    entries = read_properties(path, {})
    findings = list(settings_findings(path, entries, settings))
    by_key = {item.about.rpartition(" ")[2]: item for item in findings}
    assert {key for key, _, _ in entries} <= set(by_key)
    assert "server.inference_port = 9080" in by_key["inference_address"].text
    assert (by_key["number_of_netty_threads"].level, by_key["invented"].level) == ("changed", "changed")
    assert "tunes the Java server" in by_key["number_of_netty_threads"].text
    assert "model.a:1.0.batch_size = 4" in by_key["models"].text
    assert by_key["LOG_LOCATION"].text.startswith("honoured: log.directory")
    assert "secret" not in str(findings)


def test_a_missing_import_is_told_apart_from_one_that_is_only_tried(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(
        "import os, json\nimport helper\nimport no_such_library.part\n"
        "from ts.torch_handler.base_handler import BaseHandler\n"
        "try:\n    import no_such_speedup\nexcept ImportError:\n    no_such_speedup = None\nfrom . import sibling\n"
    )
    (tmp_path / "helper.py").write_text("import yaml\n")
    (tmp_path / "old.py").write_text("print 'hello'\n")
    found = {item.text.split(",")[0]: item for item in import_findings("m.mar", tmp_path)}
    assert found["imports no_such_library"].level == "missing"
    assert found["imports no_such_library"].about == "m.mar handler.py:3"
    assert found["imports no_such_speedup"].level == "changed"
    assert any("is no Python" in text for text in found)
    assert len(found) == 3


def test_every_difference_says_what_and_why() -> None:
    for name, difference in DIFFERENCES.items():
        assert all((difference.theirs, difference.ours, difference.why)), name
        assert not difference.ours.endswith("."), f"{name}: the texts are put into sentences"


def findings_of(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> dict[str, list[tuple[str, str]]]:
    path = tmp_path / "config.properties"
    path.write_text(text)
    settings = read_torchserve_settings(
        ts_config=path, model_store=str(tmp_path), ncs=True, environ=environ or {}, directory=tmp_path
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for item in settings_findings(path, read_properties(path, {}), settings):
        found.setdefault(item.about.rpartition(" ")[2], []).append((item.level, item.text))
    return found


def test_a_line_that_something_else_overrides_is_not_called_honoured(tmp_path: Path) -> None:
    text = "enable_envvars_config=true\njob_queue_size=10\nmodel_store=/elsewhere\ndebug=true\ndebug=yes\n"
    found = findings_of(tmp_path, text, {"TS_JOB_QUEUE_SIZE": "20"})
    assert found["job_queue_size"] == [("changed", "does not count: env TS_JOB_QUEUE_SIZE says 20")]
    assert found["model_store"] == [("changed", f"does not count: flag --model-store says {tmp_path}")]
    assert [level for level, _ in found["debug"]] == ["changed", "ok", "changed"]
    assert found["debug"][0][1] == "does not count: line 5 sets it again"
    assert found["TS_JOB_QUEUE_SIZE"] == [("ok", "honoured: defaults.job_queue_size = 20")]


def test_every_remark_about_a_line_is_told_not_only_the_last(tmp_path: Path) -> None:
    state = '{"m": {"1.0": {"marName": "m.mar", "runtimeType": "python", "batchSize": 2}}}'
    found = findings_of(tmp_path, f"models={state}\n")["models"]
    assert [level for level, _ in found] == ["ok", "changed", "changed"]
    assert "batch_size = 2" in found[0][1]


def test_what_is_named_and_missing_is_found_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "there.mar").touch()
    one = '"minWorkers": 1, "maxWorkers": 2, "batchSize": 1, "maxBatchDelay": 10, "defaultVersion": true'
    models = ", ".join(f'"{name}": {{"1.0": {{"marName": "{name}.mar", {one}}}}}' for name in ("there", "gone"))
    text = (
        "load_models=there.mar,n=lost.mar\ndefault_service_handler=no_such_package.service:handle\n"
        f'model_snapshot={{"name": "x", "modelCount": 2, "models": {{{models}}}}}\n'
    )
    found = findings_of(tmp_path, text)
    assert [level for level, _ in found["load_models"]] == ["ok", "failed"]
    assert found["load_models"][1][1] == f"lost.mar is not in the model store {tmp_path}"
    assert [level for level, _ in found["model_snapshot"]] == ["ok", "failed"]
    assert found["model_snapshot"][1][1].startswith("gone.mar of gone:1.0 is not in the model store")
    assert found["default_service_handler"][1] == (
        "missing",
        "the handler's package no_such_package is not installed",
    )
