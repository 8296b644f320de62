"""What inspect, verify and diff tell, over all formats and over archives that other tools made."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlserve.archive import diff, inspect, pack, verify
from mlserve.archive.manifest import normal_handler, parse_manifest
from mlserve.archive.yamlfile import parse_config
from mlserve.errors import ArchiveError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "handler.py").write_text("def handle(data, context): return data\n")
    (tmp_path / "model-config.yaml").write_text("batchSize: 4\n")
    (tmp_path / "req.txt").write_text("# comment\nnumpy>=1\n\npillow\n")
    (tmp_path / "w.pt").write_text("w")
    return tmp_path


def build(source: Path, **options: Any) -> Path:
    return pack(
        **{
            "model_name": "m",
            "version": "2",
            "handler": str(source / "handler.py"),
            "export_path": source,
            "force": True,
            **options,
        }
    )


@pytest.mark.parametrize(("form", "kind"), [("default", "zip"), ("tgz", "tgz"), ("no-archive", "directory")])
def test_inspect_tells_which_code_runs(source: Path, form: str, kind: str) -> None:
    path = build(
        source,
        handler=str(source / "handler.py:handle"),
        serialized_file=source / "w.pt",
        config_file=source / "model-config.yaml",
        requirements_file=source / "req.txt",
        archive_format=form,
    )
    info = inspect(path)
    assert (info.kind, info.model_name, info.version, info.runtime) == (kind, "m", "2", "python")
    assert (info.handler, info.handler_source, info.handler_file) == ("handler.py:handle", "archive", "handler.py")
    assert info.function == "handle"
    assert info.serialized_file == "w.pt"
    assert info.requirements == ("numpy>=1", "pillow")
    assert info.config == {"batchSize": 4}
    assert info.problems == ()
    assert info.unpacked_size == sum(member.size for member in info.members)


def write(path: Path, manifest: object, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        if manifest is not None:
            archive.writestr("MAR-INF/MANIFEST.json", manifest if isinstance(manifest, str) else json.dumps(manifest))
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def head(**model: Any) -> dict[str, Any]:
    return {"runtime": "python", "model": {"modelName": "m", "modelVersion": "1", **model}}


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        (None, "there is no manifest"),
        ("{", "Failed to parse manifest"),
        ({"runtime": "python"}, "Model name is not defined."),
        ({"model": None}, "Missing Model entry in manifest file."),
        (head(), "names no handler"),
        (head(handler="gone.py"), "neither in the archive nor built in"),
        (head(handler="base_handler", configFile="c.yaml"), "configFile 'c.yaml'"),
        (head(handler="base_handler", serializedFile="../w.pt"), "serializedFile '../w.pt'"),
        (head(handler="base_handler", configFile="../../etc/passwd"), "leaves the archive"),
        (head(handler="base_handler", configFile="bad.yaml"), "not valid YAML"),
    ],
)
def test_what_keeps_a_model_from_loading_is_a_problem(tmp_path: Path, manifest: object, problem: str) -> None:
    path = write(tmp_path / "a.mar", manifest, **{"bad.yaml": "a: [", "x.py": ""})
    assert any(problem in text for text in inspect(path).problems)
    report = verify(path)
    assert not report.ok
    assert any(problem in found.reason for found in report.problems)


def test_verify_names_the_member(source: Path) -> None:
    path = build(source, serialized_file=source / "w.pt", archive_format="no-archive")
    assert verify(path).ok
    (path / "w.pt").write_text("W")
    (path / "handler.py").unlink()
    found = {problem.member: problem.reason for problem in verify(path).problems if problem.member}
    assert found == {"w.pt": "its SHA-256 is not the manifest's", "handler.py": "is listed in the manifest and missing"}


def test_diff_is_about_content_and_not_about_the_container(source: Path) -> None:
    a, b, c = (build(source, archive_format=form) for form in ("default", "tgz", "no-archive"))
    assert diff(a, b).same
    assert diff(b, c).same


def test_diff_names_every_change(source: Path) -> None:
    a = build(source, serialized_file=source / "w.pt")
    (source / "handler.py").write_text("def handle(data, context): return []\n")
    b = build(source, model_name="n", extra_files=str(source / "req.txt"))
    changes = {change.what: (change.a, change.b) for change in diff(a, b).changes}
    assert changes.keys() == {
        "handler.py",
        "req.txt",
        "w.pt",
        "manifest:model.modelName",
        "manifest:model.serializedFile",
    }
    assert changes["manifest:model.modelName"] == ("m", "n")
    assert changes["req.txt"][0] is None
    assert changes["w.pt"][1] is None


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "Model name is not defined."),
        ({"model": []}, "Missing Model entry in manifest file."),
        ({"model": {}}, "Model name is not defined."),
        ({"model": {"modelName": "m", "modelVersion": ""}, "runtime": "python"}, "Model version is not defined."),
        ({"model": {"modelName": ["m"]}}, "Model name is not defined."),
        ({"model": {"modelName": "m"}, "runtime": None}, "Runtime is not defined or invalid."),
        ({"model": {"modelName": "m"}, "runtime": "perl"}, "Runtime is not defined or invalid."),
    ],
)
def test_incomplete_manifest_is_refused_in_known_words(manifest: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchiveError) as error:
        parse_manifest(json.dumps(manifest))
    assert error.value.message == message


def test_manifest_that_torchserve_serves_is_refused() -> None:
    manifest = parse_manifest(json.dumps({"model": {"modelName": 7}}))
    assert (manifest["model"]["modelName"], manifest["runtime"]) == ("7", "python")
    assert parse_manifest(json.dumps({"model": {"modelName": "m"}, "runtime": "PYTHON3"}))["runtime"] == "python3"
    assert "modelName" not in parse_manifest(json.dumps({"model": {}}), named=True)["model"]


@pytest.mark.parametrize("version", ["a/b", "..", "all", "a?b", "a\nb", " ", "x" * 200, ["1"], True])
def test_version_that_cannot_stand_in_a_url_is_refused(version: object) -> None:
    with pytest.raises(ArchiveError, match="version"):
        parse_manifest(json.dumps({"model": {"modelName": "m", "modelVersion": version}, "runtime": "python"}))


def test_older_manifest_with_more_keys_and_no_version_is_read() -> None:
    text = json.dumps(
        {
            "specificationVersion": "1.0",
            "implementationVersion": "1.0",
            "description": "x",
            "modelServerVersion": "1.0",
            "license": "Apache 2.0",
            "runtime": "python3",
            "model": {"modelName": "m", "handler": "h.py", "extensions": {}},
        }
    )
    manifest = parse_manifest(text)
    assert manifest["model"]["modelVersion"] == "1.0"
    assert manifest["license"] == "Apache 2.0"
    assert (
        parse_manifest(json.dumps({"runtime": "python", "model": {"modelName": "m", "modelVersion": 2}}))["model"][
            "modelVersion"
        ]
        == "2"
    )


@pytest.mark.parametrize("text", ["[" * 100_000, b"\xff\xfe", "null", "3"])
def test_hostile_json_is_an_archive_error(text: str | bytes) -> None:
    with pytest.raises(ArchiveError, match="parse manifest"):
        parse_manifest(text)


@pytest.mark.parametrize(
    ("handler", "normal"),
    [
        ("h.py:f", "h:f"),
        ("h", "h"),
        ("d/h.py", "h"),
        ("my-handler.py", "my-handler"),
        ("image_classifier", "image_classifier"),
    ],
)
def test_handler_is_normal(handler: str, normal: str) -> None:
    assert normal_handler(handler) == normal


@pytest.mark.parametrize("handler", ["", ":", "h:", "h:a-b", "..", "a/..", ".py", "d/", "a\\b", "a\nb"])
def test_handler_that_names_no_module_is_refused(handler: str) -> None:
    with pytest.raises(ArchiveError):
        normal_handler(handler)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "unfolds"),
        ("a: &a [*a]", "unfolds"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("- 1", "mapping"),
        ("1: 2", "mapping"),
        ("a: b: c", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("a: 2020-13-45", "not valid YAML"),
    ],
)
def test_hostile_yaml_is_an_archive_error(text: str, why: str) -> None:
    with pytest.raises(ArchiveError, match=why):
        parse_config(text.encode(), "model-config.yaml")


def test_empty_yaml_is_an_empty_config() -> None:
    assert parse_config(b"# nothing\n", "model-config.yaml") == {}
