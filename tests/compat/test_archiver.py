"""The archivers' commands: the archives that they write, the files in them and the exit codes, row by row."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.drop_in import OURS, commands

Archiver = Callable[..., "subprocess.CompletedProcess[str]"]
BASE = ("--model-name", "model", "--version", "1.0", "--handler", "handler.py", "--export-path", "out")
MODEL = ("--model-file", "net.py", "--serialized-file", "weights.pt")
WORKFLOW = ("--workflow-name", "flow", "--spec-file", "c.yaml", "--export-path", "out", "--handler")
MANIFEST = "MAR-INF/MANIFEST.json"


@pytest.fixture
def archiver(against: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Archiver:
    """Run the command in a folder with a model's files; returns what it said."""
    folder = commands(against, tmp_path_factory.mktemp("commands"))
    temp = tmp_path_factory.mktemp("temp")
    path = os.pathsep.join((str(folder), str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {**os.environ, "PATH": path, "TMPDIR": str(temp)}
    for name in (
        "handler.py",
        "net.py",
        "weights.pt",
        "extra/a.txt",
        "extra/sub/b.txt",
        "labels.json",
        "other/labels.json",
        "extra/.hidden/x.txt",
        "extra/__pycache__/x.pyc",
        "r.txt",
        "c.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "out").mkdir()

    def run(*words: str, command: str = "torch-model-archiver") -> subprocess.CompletedProcess[str]:
        if not (folder / command).exists():  # the workflow archiver is a package of its own
            pytest.skip(f"{command} is not on PATH")
        done = subprocess.run(
            [str(folder / command), *words],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if against == OURS or not done.returncode:  # "archiver-staging" in the table of differences
            assert not list(temp.glob("model*")), "the staging folder is left"
        return done

    return run


def members(path: Path) -> dict[str, bytes]:
    """The files of an archive of any format, by their names in it."""
    if path.is_dir():
        return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}
    if path.suffix == ".gz":
        with tarfile.open(path) as packed:
            files = [one for one in packed.getmembers() if one.isfile()]
            return {one.name: packed.extractfile(one).read() for one in files}  # type: ignore[union-attr]
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}


@pytest.mark.parametrize(
    ("words", "file", "top"),
    [
        (("--archive-format", "default"), "model.mar", ""),
        (("--archive-format", "zip-store"), "model.mar", ""),
        (("--archive-format", "tgz"), "model.tar.gz", "model/"),
        (("--archive-format", "no-archive"), "model", ""),
    ],
)
def test_every_format_holds_the_same_files(
    archiver: Archiver, tmp_path: Path, words: Sequence[str], file: str, top: str
) -> None:
    done = archiver(*BASE, *MODEL, "--extra-files", "labels.json,extra/a.txt", *words)
    assert done.returncode == 0, done.stderr
    packed = members(tmp_path / "out" / file)
    names = ("handler.py", "net.py", "weights.pt", "labels.json", "a.txt", MANIFEST)
    assert sorted(packed) == sorted(f"{top}{name}" for name in names)
    assert packed[f"{top}weights.pt"] == b"# weights.pt\n"
    if file.endswith(".mar"):
        with zipfile.ZipFile(tmp_path / "out" / file) as opened:
            stored = opened.getinfo("net.py").compress_type == zipfile.ZIP_STORED
        assert stored == ("zip-store" in words)


def test_the_manifest_names_what_was_given_and_nothing_else(archiver: Archiver, tmp_path: Path) -> None:
    assert archiver(*BASE).returncode == 0
    document = json.loads(members(tmp_path / "out" / "model.mar")[MANIFEST])
    assert re.fullmatch(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", document.pop("createdOn"))
    assert {"runtime", "model", "archiverVersion"} <= set(document)
    assert document["runtime"] == "python"
    assert document["model"] == {"modelName": "model", "handler": "handler.py", "modelVersion": "1.0"}
    more = ("--requirements-file", "r.txt", "--config-file", "c.yaml", "--runtime", "python3", "-f")
    assert archiver(*BASE, *MODEL, *more).returncode == 0
    document = json.loads(members(tmp_path / "out" / "model.mar")[MANIFEST])
    assert document["runtime"] == "python3"
    assert document["model"] == {
        "modelName": "model",
        "serializedFile": "weights.pt",
        "handler": "handler.py",
        "modelFile": "net.py",
        "modelVersion": "1.0",
        "requirementsFile": "r.txt",
        "configFile": "c.yaml",
    }


@pytest.mark.parametrize(
    ("handler", "copied", "shown"),
    [
        ("handler", True, "handler"),
        ("handler:answer", True, "handler:answer"),
        ("image_classifier", False, "image_classifier"),
        ("text_classifier", False, "text_classifier"),
        ("base_handler", False, "base_handler"),
        ("object_detector", False, "object_detector"),
        ("image_segmenter", False, "image_segmenter"),
        ("vllm_handler", False, "vllm_handler"),
    ],
)
def test_a_handler_is_copied_unless_it_is_built_in(
    archiver: Archiver, tmp_path: Path, handler: str, copied: bool, shown: str
) -> None:
    done = archiver(*BASE, *MODEL, "--handler", handler)
    assert done.returncode == 0, done.stderr
    packed = members(tmp_path / "out" / "model.mar")
    assert ("handler.py" in packed) == copied
    assert json.loads(packed[MANIFEST])["model"]["handler"] == shown


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("labels.json,r.txt", {"labels.json", "r.txt"}),
        ("extra", {"a.txt", "sub/b.txt"}),
        ("*.json", {"labels.json"}),
        ("*.none", set()),
        ("extra,labels.json", {"a.txt", "sub/b.txt", "labels.json"}),
        ("extra/*", {"a.txt", "b.txt", "x.pyc"}),
        ("extra/**", {"a.txt", "b.txt", "x.pyc"}),
        ("other/labels.json", {"labels.json"}),
    ],
)
def test_extra_files_land_in_the_root(archiver: Archiver, tmp_path: Path, extra: str, names: set[str]) -> None:
    done = archiver(*BASE, "--extra-files", extra)
    assert done.returncode == 0, done.stderr
    assert set(members(tmp_path / "out" / "model.mar")) == {"handler.py", MANIFEST, *names}


def test_of_two_files_with_one_name_the_later_is_packed(archiver: Archiver, tmp_path: Path) -> None:
    done = archiver(*BASE, "--extra-files", "labels.json,other/labels.json")
    assert done.returncode == 0, done.stderr
    assert members(tmp_path / "out" / "model.mar")["labels.json"] == b"# other/labels.json\n"


@pytest.mark.parametrize("form", ["default", "tgz", "no-archive"])
def test_an_unpacked_model_can_be_packed_again(archiver: Archiver, tmp_path: Path, form: str) -> None:
    (tmp_path / "extra" / "MAR-INF").mkdir()
    (tmp_path / "extra" / "MAR-INF" / "MANIFEST.json").write_text("{}")
    done = archiver(*BASE, "--extra-files", "extra", "--archive-format", form)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").iterdir()
    (document,) = [json.loads(text) for name, text in members(path).items() if name.endswith(MANIFEST)]
    assert document["model"]["modelName"] == "model"


def test_an_empty_argument_is_as_good_as_none(archiver: Archiver, tmp_path: Path) -> None:
    done = archiver(*BASE, "--serialized-file", "", "--model-file", "", "--extra-files", "", "-r", "", "-c", "")
    assert done.returncode == 0, done.stderr
    document = json.loads(members(tmp_path / "out" / "model.mar")[MANIFEST])
    assert document["model"] == {"modelName": "model", "handler": "handler.py", "modelVersion": "1.0"}


def test_force_leaves_what_somebody_put_beside_an_unpacked_model(archiver: Archiver, tmp_path: Path) -> None:
    words = (*BASE, "--archive-format", "no-archive")
    assert archiver(*words).returncode == 0
    (tmp_path / "out" / "model" / "weights").mkdir()
    (tmp_path / "out" / "model" / "weights" / "70b.bin").write_text("precious")
    assert archiver(*words, *MODEL, "--force").returncode == 0
    packed = members(tmp_path / "out" / "model")
    assert set(packed) == {"handler.py", "net.py", "weights.pt", "weights/70b.bin", MANIFEST}


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_an_archive_that_is_there_is_replaced_by_force_only(archiver: Archiver, tmp_path: Path, form: str) -> None:
    words = (*BASE, "--archive-format", form)
    assert archiver(*words).returncode == 0
    done = archiver(*words, *MODEL)
    assert (done.returncode, "ModelArchiverError" in done.stderr, "-f" in done.stderr) == (1, True, True)
    assert archiver(*words, *MODEL, "--force").returncode == 0
    (file,) = (tmp_path / "out").iterdir()
    assert any(name.endswith("net.py") for name in members(file))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((*BASE, "--extra-files", "missing.json"), 1, "FileNotFoundError"),
        ((*BASE, "--serialized-file", "missing.pt"), 1, "FileNotFoundError"),
        ((*BASE, "--model-file", "missing.py"), 1, "FileNotFoundError"),
        ((*BASE, "--requirements-file", "missing.txt"), 1, "FileNotFoundError"),
        ((*BASE, "--config-file", "missing.yaml"), 1, "FileNotFoundError"),
        ((*BASE, "--handler", "missing"), 1, "FileNotFoundError"),
        ((*BASE, "--export-path", "missing"), 1, "ModelArchiverError"),
        ((*BASE, "--model-name", "a/b"), 1, "ModelArchiverError"),
        ((*BASE, "--archive-format", "rar"), 2, "usage: torch-model-archiver"),
        ((*BASE, "--runtime", "java"), 2, "usage: torch-model-archiver"),
        ((), 2, "usage: torch-model-archiver"),
    ],
)
def test_a_mistake_ends_with_its_exit_code(
    archiver: Archiver, tmp_path: Path, words: Sequence[str], code: int, said: str
) -> None:
    done = archiver(*words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_a_workflow_archive_names_its_specification_and_its_functions(archiver: Archiver, tmp_path: Path) -> None:
    words = (*WORKFLOW, "handler.py", "--extra-files", "labels.json,extra/a.txt")
    done = archiver(*words, command="torch-workflow-archiver")
    assert done.returncode == 0, done.stderr
    packed = members(tmp_path / "out" / "flow.war")
    assert set(packed) == {"c.yaml", "handler.py", "labels.json", "a.txt", "WAR-INF/MANIFEST.json"}
    document = json.loads(packed["WAR-INF/MANIFEST.json"])
    assert re.fullmatch(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", document["createdOn"])
    assert document["workflow"] == {"workflowName": "flow", "specFile": "c.yaml", "handler": "handler.py"}
    assert document["archiverVersion"] == "0.2.15"
    again = archiver(*WORKFLOW, "handler.py", command="torch-workflow-archiver")
    assert (again.returncode, "--force/-f" in again.stderr) == (1, True)
    assert archiver(*WORKFLOW, "handler.py", "-f", command="torch-workflow-archiver").returncode == 0
    assert "labels.json" not in members(tmp_path / "out" / "flow.war")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((*WORKFLOW, "missing.py"), 1, "missing.py"),
        ((*WORKFLOW, "handler.py", "--spec-file", "missing.yaml"), 1, "missing.yaml"),
        ((*WORKFLOW, "handler.py", "--extra-files", "labels.json,missing.json"), 1, "missing.json"),
        ((*WORKFLOW, "handler.py", "--export-path", "missing"), 1, "Given export-path missing is not a directory"),
        ((*WORKFLOW, "handler.py", "--workflow-name", "a/b"), 1, "ame"),
        (("--workflow-name", "flow"), 2, "usage: torch-workflow-archiver"),
    ],
)
def test_a_mistake_with_a_workflow_ends_with_its_exit_code(
    archiver: Archiver, tmp_path: Path, words: Sequence[str], code: int, said: str
) -> None:
    done = archiver(*words, command="torch-workflow-archiver")
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not list((tmp_path / "out").iterdir())
