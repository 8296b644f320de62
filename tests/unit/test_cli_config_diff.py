"""``mlserve config diff``: what differs between mlserve's way, TorchServe's, and the configuration in effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlserve.cli import app
from mlserve.settings import PROFILES


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def diff(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert app.run(["config", "diff", "--json", *arguments]) == 0
    return {row.pop("setting"): row for row in json.loads(capsys.readouterr().out)}


def test_nothing_given_lists_what_the_profile_would_change_and_only_that(capsys: pytest.CaptureFixture[str]) -> None:
    rows = diff(capsys)
    assert set(rows) == set(PROFILES["torchserve"])
    expected = {"default": 1000, "torchserve": 100, "value": 1000, "source": "default"}
    assert rows["defaults.job_queue_size"] == expected


def test_profile_and_flag_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    rows = diff(capsys, "--profile", "torchserve", "--batch-size", "4")
    assert rows["auth.tokens"] == {
        "default": False,
        "torchserve": True,
        "value": True,
        "source": "profile torchserve",
    }
    assert rows["defaults.batch_size"]["source"] == "flag --batch-size"


def test_configuration_of_torchserve_shows_its_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "ts.cfg"
    path.write_text('job_queue_size=1000\nmodels={"m": {"1.0": {"batchSize": 2}}}\n')
    rows = diff(capsys, "--ts-config", str(path))
    assert rows["defaults.job_queue_size"]["source"] == "ts.cfg:1", (
        "it is mlserve's default again, but not the profile's"
    )
    assert rows["model.m:1.0.batch_size"] == {"default": None, "torchserve": None, "value": 2, "source": "ts.cfg:2"}


@pytest.mark.parametrize("words", [["diff"], ["diff", "--json"], ["show"], ["show", "--json"]])
def test_a_password_is_not_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "ts.properties"
    path.write_text("keystore=/some/file.p12\nkeystore_pass=SeCrEt\n")
    assert app.run(["config", *words, "--ts-config", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "SeCrEt" not in shown
    assert "******" in shown


def test_plain_lines_have_a_head_and_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["config", "diff"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("setting ")
    assert len({line.rindex("default") for line in lines}) == 1


def test_unknown_profile_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["config", "diff", "--profile", "torchserv"]) == 2
    assert "did you mean torchserve?" in capsys.readouterr().err


def test_two_settings_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["config", "show", "--config", "a.toml", "--ts-config", "b.properties"]) == 2
    assert "give one" in capsys.readouterr().err
