"""Packing: what lands where, the same bytes every time, and never a half archive."""

import hashlib
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlserve.archive import inspect, pack, packing, unpack, verify, writing
from mlserve.errors import ArchiveError

FORMATS = ["default", "zip-store", "tgz", "no-archive"]


@pytest.fixture(autouse=True)
def _no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A source tree: handler.py, weights.pt, assets/ with sub-directories and things that are not packed."""
    root = tmp_path / "src"
    for name, text in {
        "handler.py": "def handle(data, context):\n    return data\n",
        "weights.pt": "weights",
        "assets/index_to_name.json": "{}",
        "assets/vocab/en.txt": "a b c",
        "assets/vocab/de.txt": "ä",
        "assets/__pycache__/x.pyc": "no",
        "assets/.git/config": "no",
        "assets/__MACOSX/x": "no",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "out").mkdir()
    return root


def packed(model: Path, **options: Any) -> Path:
    given = {"model_name": "m", "version": "1.0", "handler": f"{model}/handler.py", "export_path": model.parent / "out"}
    return pack(**{**given, **options})


def names(path: Path) -> list[str]:
    return sorted(member.name for member in inspect(path).members)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("form", "file"), [*zip(FORMATS, ["m.mar", "m.mar", "m.tar.gz", "m"], strict=True)])
def test_every_format_holds_the_same_members(model: Path, form: str, file: str) -> None:
    path = packed(model, archive_format=form, extra_files=str(model / "assets"), serialized_file=model / "weights.pt")
    assert path == model.parent / "out" / file
    assert names(path) == [
        "MAR-INF/MANIFEST.json",
        "handler.py",
        "index_to_name.json",
        "vocab/de.txt",
        "vocab/en.txt",
        "weights.pt",
    ]
    assert verify(path).ok


def test_manifest_is_the_archivers(model: Path) -> None:
    (model / "req.txt").write_text("numpy\n")
    (model / "model-config.yaml").write_text("batchSize: 2\n")
    (model / "net.py").write_text("class Net: ...\n")
    path = packed(
        model,
        handler=f"{model}/handler.py:handle",
        serialized_file=model / "weights.pt",
        model_file=model / "net.py",
        requirements_file=model / "req.txt",
        config_file=model / "model-config.yaml",
        runtime="python3",
    )
    manifest = json.loads(zipfile.ZipFile(path).read("MAR-INF/MANIFEST.json"))
    checksums = manifest.pop("checksums")
    assert manifest.pop("archiverVersion")
    assert manifest == {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python3",
        "model": {
            "modelName": "m",
            "serializedFile": "weights.pt",
            "handler": "handler.py:handle",
            "modelFile": "net.py",
            "modelVersion": "1.0",
            "requirementsFile": "req.txt",
            "configFile": "model-config.yaml",
        },
    }
    assert checksums["weights.pt"] == hashlib.sha256(b"weights").hexdigest()
    assert sorted(checksums) == ["handler.py", "model-config.yaml", "net.py", "req.txt", "weights.pt"]


@pytest.mark.parametrize(
    ("handler", "manifest", "members"),
    [
        ("image_classifier", "image_classifier", []),
        ("base_handler", "base_handler", []),
        ("handler", "handler", ["handler.py"]),
        ("handler.py", "handler.py", ["handler.py"]),
        ("handler:handle", "handler:handle", ["handler.py"]),
        ("handler.py:handle", "handler.py:handle", ["handler.py"]),
        ("./handler.py:handle", "handler.py:handle", ["handler.py"]),
    ],
)
def test_handler_is_taken_in_every_spelling(
    model: Path, monkeypatch: pytest.MonkeyPatch, handler: str, manifest: str, members: list[str]
) -> None:
    monkeypatch.chdir(model)
    path = packed(model, handler=handler)
    assert inspect(path).handler == manifest
    assert names(path) == ["MAR-INF/MANIFEST.json", *members]
    assert verify(path).ok


def test_handler_module_of_this_package_is_not_copied_unless_a_file_has_its_name(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    assert names(packed(model, handler="base")) == ["MAR-INF/MANIFEST.json"]
    (model / "base.py").write_text("def handle(data, context): ...\n")
    assert "base.py" in names(packed(model, handler="base", force=True))


@pytest.mark.parametrize("form", FORMATS[:3])
def test_same_inputs_give_the_same_bytes(model: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    first = sha256(packed(model, archive_format=form, extra_files=[model / "assets"]))
    for path in model.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        if path.is_file():
            path.chmod(0o755)
    monkeypatch.chdir(model)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    again = pack(
        model_name="m",
        version="1.0",
        handler="handler.py",
        export_path="../out",
        archive_format=form,
        extra_files="./assets/",
        force=True,
    )
    assert sha256(again) == first


def test_source_date_epoch_sets_every_date(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sha256(packed(model))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    path = packed(model, force=True)
    assert sha256(path) != before
    with zipfile.ZipFile(path) as archive:
        assert {info.date_time for info in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}
    info = inspect(path)
    assert info.manifest is not None
    assert info.manifest["createdOn"] == "14/11/2023 22:13:20"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ArchiveError, match="SOURCE_DATE_EPOCH"):
        packed(model, force=True)


def test_collision_names_both_files(model: Path) -> None:
    other = model / "other" / "weights.pt"
    other.parent.mkdir()
    other.write_text("others")
    with pytest.raises(ArchiveError) as error:
        packed(model, serialized_file=model / "weights.pt", extra_files=[other])
    assert str(other) in error.value.message
    assert str(model / "weights.pt") in error.value.message
    assert list((model.parent / "out").iterdir()) == []


def test_the_same_file_twice_is_no_collision(model: Path) -> None:
    path = packed(model, model_file=model / "handler.py", extra_files=f"{model}/handler.py,{model}/handler.py")
    assert names(path) == ["MAR-INF/MANIFEST.json", "handler.py"]


def test_globs(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = packed(model, extra_files=f"{model}/assets/vocab/*.txt, {model}/nothing*")
    assert names(path) == ["MAR-INF/MANIFEST.json", "de.txt", "en.txt", "handler.py"]
    assert "matches no file" in caplog.text
    path = packed(model, extra_files=[f"{model}/assets/**/*.txt"], force=True)
    assert names(path) == ["MAR-INF/MANIFEST.json", "handler.py", "vocab/de.txt", "vocab/en.txt"]


def test_file_with_a_comma_or_brackets_in_its_name(model: Path) -> None:
    odd = model / "a,b[1].txt"
    odd.write_text("x")
    assert "a,b[1].txt" in names(packed(model, extra_files=[odd]))


def test_output_is_not_packed_into_itself(model: Path) -> None:
    options: dict[str, Any] = {"export_path": model, "extra_files": str(model)}
    first = sha256(packed(model, **options))
    assert sha256(packed(model, force=True, **options)) == first


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"model_name": "../m"}, "Model name"),
        ({"model_name": ""}, "Model name"),
        ({"version": "1/2"}, "version"),
        ({"version": ""}, "version"),
        ({"handler": "nothing_like_it"}, "nothing_like_it.py"),
        ({"handler": "handler:not-a-name"}, "not a function name"),
        ({"handler": ":handle"}, "names no file"),
        ({"serialized_file": "gone.pt"}, "gone.pt"),
        ({"extra_files": "gone"}, "gone"),
        ({"runtime": "perl"}, "perl"),
        ({"archive_format": "rar"}, "rar"),
        ({"export_path": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_wrong_input_is_named(model: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArchiveError, match=text):
        packed(model, **options)


def test_manifest_directory_cannot_be_brought_along(model: Path) -> None:
    (model / "old/MAR-INF").mkdir(parents=True)
    (model / "old/MAR-INF/MANIFEST.json").write_text("{}")
    with pytest.raises(ArchiveError, match="MAR-INF"):
        packed(model, extra_files=str(model / "old"))


def test_special_files_and_circles_are_refused(model: Path) -> None:
    os.mkfifo(model / "assets" / "pipe")
    with pytest.raises(ArchiveError, match="regular file"):
        packed(model, extra_files=str(model / "assets"))
    (model / "assets" / "pipe").unlink()
    (model / "assets" / "vocab" / "up").symlink_to(model / "assets")
    with pytest.raises(ArchiveError, match="above it"):
        packed(model, extra_files=str(model / "assets"))


@pytest.mark.parametrize("form", FORMATS)
def test_existing_output_stays_without_force(model: Path, form: str) -> None:
    path = packed(model, archive_format=form)
    with pytest.raises(ArchiveError, match="--force"):
        packed(model, archive_format=form, serialized_file=model / "weights.pt")
    assert "weights.pt" not in names(path)
    packed(model, archive_format=form, serialized_file=model / "weights.pt", force=True)
    assert "weights.pt" in names(path)
    assert [entry.name for entry in (model.parent / "out").iterdir()] == [path.name]


def test_force_never_removes_what_it_did_not_write(model: Path) -> None:
    target = model.parent / "out" / "m"
    (target / "weights").mkdir(parents=True)
    (target / "weights" / "70b.safetensors").write_text("precious")
    extra = {"archive_format": "no-archive", "force": True}
    packed(model, extra_files=f"{model}/assets", **extra)
    assert (target / "vocab" / "en.txt").is_file()
    (target / "handler.py").write_text("edited")
    packed(model, **extra)
    assert (target / "weights" / "70b.safetensors").read_text() == "precious"
    assert (target / "handler.py").read_bytes() == (model / "handler.py").read_bytes()
    assert not (target / "vocab" / "en.txt").exists(), "a file of the earlier packing is left"


def test_two_sources_of_one_member_are_an_error_or_the_later_one(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "other").mkdir()
    (model / "other" / "weights.pt").write_text("other")
    clash = {"serialized_file": model / "weights.pt", "extra_files": str(model / "other")}
    with pytest.raises(ArchiveError, match=r"would both be 'weights\.pt'"):
        packed(model, **clash)
    with zipfile.ZipFile(packed(model, last_wins=True, **clash)) as archive:
        assert archive.read("weights.pt") == b"other"
    assert "takes the place of" in caplog.text


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("change", ["grow", "shrink", "same size"])
def test_file_that_changes_while_it_is_packed_leaves_nothing(model: Path, form: str, change: str) -> None:
    weights = model / "weights.pt"
    texts = {"grow": "weights and more", "shrink": "w", "same size": "WEIGHTS"}

    def meddle(member: str, done: int, total: int) -> None:
        if member == "weights.pt" and done <= total // 2:  # after it was hashed, before it is written
            weights.write_text(texts[change])

    with pytest.raises(ArchiveError, match="changed while"):
        packed(model, serialized_file=weights, archive_format=form, progress=meddle)
    assert list((model.parent / "out").iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_interrupted_packing_leaves_nothing_and_keeps_the_old_archive(
    model: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = packed(model, archive_format=form)
    before = names(path)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_sync", interrupt)
    monkeypatch.setattr(os, "replace", interrupt)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        packed(model, archive_format=form, force=True, serialized_file=model / "weights.pt")
    assert names(path) == before
    assert [entry.name for entry in (model.parent / "out").iterdir()] == [path.name]


def test_progress_counts_every_byte_twice(model: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    packed(model, serialized_file=model / "weights.pt", progress=lambda *call: calls.append(call))
    size = (model / "weights.pt").stat().st_size + (model / "handler.py").stat().st_size
    assert calls[-1][1:] == (2 * size, 2 * size)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


@pytest.mark.parametrize("form", ["zip-store", "tgz"])
def test_memory_does_not_grow_with_the_model(model: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # waiting for the disk is not what is measured
    big = model / "big.pt"
    with big.open("wb") as file:
        file.truncate(320 << 20 if form == "zip-store" else 64 << 20)  # sparse: no disk is used for the source
    tracemalloc.start()
    try:
        path = packed(model, serialized_file=big, archive_format=form)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 32 << 10
    assert peak < 16 << 20
    path.unlink()


def test_archive_follows_the_umask(model: Path) -> None:
    before = os.umask(0o027)
    try:
        assert packed(model).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


FILE_NAMES = st.lists(st.text(alphabet="abcé-_. 1", min_size=1, max_size=8).filter(lambda s: s.strip(". ")), max_size=3)
TREES = st.dictionaries(FILE_NAMES.filter(bool).map(tuple), st.binary(max_size=300), max_size=5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, form=st.sampled_from(FORMATS))
def test_what_was_packed_comes_out(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[tuple[str, ...], bytes], form: str
) -> None:
    root = tmp_path_factory.mktemp("tree")
    source, out = root / "source", root / "out"
    source.mkdir()
    out.mkdir()
    expected = {}
    for parts, content in tree.items():
        path = source.joinpath(*parts)
        if any(part.startswith(".") for part in parts[:-1]) or path.exists():
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            continue
        expected[path.relative_to(source).as_posix()] = content
    archive = pack(
        model_name="m", version="1", handler="base_handler", extra_files=[source], export_path=out, archive_format=form
    )
    target = archive if form == "no-archive" else unpack(archive, root / "unpacked")
    found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    found.pop("MAR-INF/MANIFEST.json")
    assert found == expected


def test_epoch_stays_within_what_a_zip_file_can_hold() -> None:
    assert packing.source_date_epoch({}) == packing.EARLIEST
    assert packing.source_date_epoch({"SOURCE_DATE_EPOCH": "0"}) == packing.EARLIEST
    assert packing.source_date_epoch({"SOURCE_DATE_EPOCH": "9" * 12}) == packing.LATEST
