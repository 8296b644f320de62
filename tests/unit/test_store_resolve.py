"""The model store: what names reach, what they don't, and that nothing is left behind."""

import asyncio
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlserve.archive import pack
from mlserve.archive.store import ModelStore
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.errors import ArchiveError, InvalidInput, ModelNotFound


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store with ``net`` in three formats, and what lies beside the store."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "net_handler.py").write_text("def handle(data, context): return data\n")
    (tmp_path / "store").mkdir()
    for form, version in (("default", "1.0"), ("tgz", "2.0"), ("no-archive", "3.0")):
        pack(
            model_name="net",
            version=version,
            handler=str(source / "net_handler.py"),
            export_path=tmp_path / "store",
            archive_format=form,
        )
    return tmp_path


def store(place: Path, **options: Any) -> ModelStore:
    given: dict[str, Any] = {"work_dir": place / "work", "defaults": {}, "model_settings": {}, "allowed_urls": ()}
    return ModelStore(place / "store", **{**given, **options})


def resolve(place: Path, url: Any, **overrides: Any) -> ModelSpec:
    return asyncio.run(store(place).resolve(url, overrides))


def local(place: Path, url: str, **overrides: Any) -> ModelSpec:
    return asyncio.run(store(place).resolve_local(url, overrides))


def left(place: Path) -> list[str]:
    models = place / "work" / "models"
    return [path.name for path in models.iterdir()] if models.exists() else []


@pytest.mark.parametrize(("url", "version"), [("net.mar", "1.0"), ("net.tar.gz", "2.0")])
def test_archive_is_unpacked_and_released(place: Path, url: str, version: str) -> None:
    models = store(place)

    async def life() -> None:
        spec = await models.resolve(url, {})
        assert spec.key == ModelKey("net", version)
        assert spec.url == url
        assert spec.handler == "net_handler"
        assert spec.owned_dir
        assert Path(spec.model_dir).parent == place / "work" / "models"
        assert (Path(spec.model_dir) / "net_handler.py").is_file()
        models.release(spec)
        assert not Path(spec.model_dir).exists()
        models.release(spec)

    asyncio.run(life())
    assert left(place) == []
    assert (place / "store" / url).exists()


def test_directory_is_used_where_it_is_and_survives_release(place: Path) -> None:
    models = store(place)
    spec = asyncio.run(models.resolve("net", {}))
    assert (spec.model_dir, spec.owned_dir, spec.key.version) == (str(place / "store" / "net"), False, "3.0")
    models.release(spec)
    assert (place / "store" / "net" / "net_handler.py").is_file()


def test_release_removes_nothing_outside_the_work_directory(place: Path) -> None:
    models = store(place)
    models.release(ModelSpec(ModelKey("x", "1"), str(place / "src"), "h", owned_dir=True))
    assert (place / "src" / "net_handler.py").is_file()


def test_directory_that_holds_one_directory_stands_for_it(place: Path) -> None:
    (place / "store" / "outer").mkdir()
    (place / "store" / "net").rename(place / "store" / "outer" / "inner")
    spec = resolve(place, "outer")
    assert spec.model_dir == str(place / "store" / "outer" / "inner")
    assert [path.name for path in store(place).list()] == ["net.mar", "net.tar.gz", "outer"]


@pytest.mark.parametrize("url", ["net.mar", "./net.mar"])
def test_store_may_be_a_link(place: Path, url: str) -> None:
    (place / "link").symlink_to(place / "store")
    models = ModelStore(
        place / "link", work_dir=place / "work", defaults={}, model_settings={}, allowed_urls=(), default_handler=""
    )
    for name in (url, str(place / "link" / "net.mar"), str(place / "store" / "net.mar")):
        assert asyncio.run(models.resolve(name, {})).key.name == "net"


def test_absolute_path_inside_the_store(place: Path) -> None:
    assert resolve(place, str(place / "store" / "net.mar")).key.version == "1.0"


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "{place}/src",
        "{place}/storehouse",
        "{place}/store",
        "/",
        ".",
        "./",
        "gone.mar",
        "net.mar/x",
        "net\0.mar",
        "x" * 5000,
        "\ud800",
        "s3://bucket/net.mar",
        "ftp://host/net.mar",
        "~/net.mar",
    ],
)
def test_nothing_outside_the_store_is_reached(place: Path, url: str) -> None:
    (place / "storehouse").mkdir()
    url = url.format(place=place)
    with pytest.raises(ModelNotFound) as error:
        resolve(place, url)
    assert error.value.message == f"Model not found at: {url}"
    assert left(place) == []


@pytest.mark.parametrize(
    "url",
    ["../src", "..", "a/../net.mar", "%2e%2e/src", "http://h/../x.mar", "http://h/%2E%2e/x.mar", "file:///a/../b"],
)
def test_relative_path_is_refused_before_anything_else(place: Path, url: str) -> None:
    models = store(place, allowed_urls=[".*"])
    with pytest.raises(ModelNotFound) as error:
        asyncio.run(models.resolve(url, {}))
    assert error.value.message == f"Relative path is not allowed in url: {url}"


def test_missing_and_empty_url(place: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^Parameter url is required\.$"):
        resolve(place, None)
    with pytest.raises(ModelNotFound, match=r"^empty url$"):
        resolve(place, "")


def test_no_store_configured(place: Path) -> None:
    models = ModelStore(None, work_dir=place / "work", defaults={}, model_settings={}, allowed_urls=())
    assert models.list() == []
    with pytest.raises(ModelNotFound):
        asyncio.run(models.resolve("net.mar", {}))
    spec = asyncio.run(models.resolve_local(str(place / "store" / "net.mar"), {}))
    assert spec.key.name == "net"


def test_list_passes_over_what_is_no_model(place: Path) -> None:
    (place / "store" / "notes.txt").write_text("x")
    (place / "store" / ".hidden.mar").write_text("x")
    (place / "store" / "stuff").mkdir()
    assert [path.name for path in store(place).list()] == ["net", "net.mar", "net.tar.gz"]


def test_list_has_bare_models_but_no_weights_without_their_code(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = place / "store"
    for name in ("net.onnx", "weights.safetensors", "weights.pth"):
        (folder / name).write_bytes(b"x")
    with zipfile.ZipFile(folder / "script.pt", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
    (folder / "boost.json").write_text('{"learner":{}}')
    (folder / "package.json").write_text('{"name": "x"}')
    (folder / "saved" / "1").mkdir(parents=True)
    (folder / "saved" / "1" / "saved_model.pb").write_bytes(b"x")
    archives = ["net", "net.mar", "net.tar.gz"]
    bare = ["boost.json", "net.onnx", "saved", "script.pt"]
    assert [path.name for path in store(place).list()] == sorted(archives + bare)
    assert [name for name in ("weights.pth", "weights.safetensors") if f"{name} is left out" in caplog.text] == [
        "weights.pth",
        "weights.safetensors",
    ]
    assert [path.name for path in store(place, bare_files=False).list()] == archives
    (folder / "model.py").write_text("")
    assert "weights.pth" in [path.name for path in store(place).list()]


def test_a_model_of_an_unknown_suffix_or_folder_is_refused_with_what_is_known(place: Path) -> None:
    (place / "store" / "net.h5").write_bytes(b"junk")
    with pytest.raises(ArchiveError, match=r"net\.h5 is not a model archive.* need no archive end in .*\.onnx"):
        resolve(place, "net.h5")
    (place / "store" / "folder").mkdir()
    with pytest.raises(ArchiveError, match=r"folder names no handler.* a SavedModel, or a folder of transformers"):
        resolve(place, "folder")


@pytest.mark.parametrize("content", [b"junk", b"PK\x03\x04junk", b""])
def test_junk_archive_is_refused_and_leaves_nothing(place: Path, content: bytes) -> None:
    (place / "store" / "junk.mar").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"junk\.mar"):
        resolve(place, "junk.mar")
    assert left(place) == []


def test_archive_whose_parts_disagree_leaves_nothing(place: Path) -> None:
    """Unpacked well, refused later: a handler that cannot be one."""
    with pytest.raises(InvalidInput):
        resolve(place, "net.mar", handler="..")
    assert left(place) == []


def test_cancelled_call_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlserve.archive import store as module

    started, go_on = threading.Event(), threading.Event()
    unpack = module.unpack

    def slow(*args: Any, **options: Any) -> Path:
        started.set()
        assert go_on.wait(10)
        return unpack(*args, **options)

    monkeypatch.setattr(module, "unpack", slow)

    async def cancelled() -> None:
        task = asyncio.create_task(store(place).resolve("net.mar", {}))
        assert await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        others = [other for other in asyncio.all_tasks() if other is not asyncio.current_task()]
        await asyncio.gather(*others)

    asyncio.run(cancelled())
    assert left(place) == []


def test_start_up_takes_a_path_anywhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (place / "store" / "net.mar").rename(elsewhere / "far.mar")
    monkeypatch.chdir(elsewhere)
    for url in ("far.mar", "./far.mar", "../elsewhere/far.mar", str(elsewhere / "far.mar")):
        assert local(place, url).key == ModelKey("net", "1.0")
    assert local(place, "net.tar.gz").key.version == "2.0"
    with pytest.raises(ModelNotFound, match="model store"):
        local(place, "gone.mar")
    with pytest.raises(ModelNotFound):
        resolve(place, "far.mar")


def test_start_up_takes_a_handler_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "src")
    (place / "src" / "model-config.yaml").write_text("batchSize: 9\n")
    spec = local(place, "net_handler.py")
    assert (spec.key, spec.handler, spec.batch_size) == (ModelKey("net_handler", "1.0"), "net_handler", 9)
    assert (spec.model_dir, spec.owned_dir, spec.manifest) == (str(place / "src"), False, {})
    spec = local(place, "../src/net_handler.py:handle", model_name="mine")
    assert (spec.key.name, spec.handler) == ("mine", "net_handler:handle")
    with pytest.raises(ModelNotFound):
        local(place, "gone.py:handle")


def test_start_up_takes_an_unpacked_directory_without_a_manifest(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    spec = local(place, "src")
    assert (spec.key.name, spec.handler, spec.owned_dir) == ("src", "net_handler", False)
    monkeypatch.chdir(place / "src")
    assert local(place, ".").key.name == "src"


def test_settings_of_a_model_reach_it(place: Path) -> None:
    models = store(place, defaults={"batch_size": 2}, model_settings={"net:2.0": {"batch_size": 5}})
    assert asyncio.run(models.resolve("net.mar", {})).batch_size == 2
    assert asyncio.run(models.resolve("net.tar.gz", {})).batch_size == 5


def test_directory_outside_the_store_needs_the_setting(place: Path) -> None:
    (place / "store" / "net").rename(place / "elsewhere")
    url = str(place / "elsewhere")
    with pytest.raises(ModelNotFound):
        resolve(place, url)
    spec = asyncio.run(store(place, any_directory=True).resolve(url, {}))
    assert (spec.model_dir, spec.owned_dir) == (url, False)
    for other in (str(place / "src" / "net_handler.py"), "elsewhere", f"{url}/../elsewhere", "/nowhere\0"):
        with pytest.raises(ModelNotFound):
            asyncio.run(store(place, any_directory=True).resolve(other, {}))


def test_archive_without_a_name_is_refused_although_the_caller_has_one(place: Path) -> None:
    with zipfile.ZipFile(place / "store" / "nameless.mar", "w") as archive:
        archive.writestr("h.py", "def handle(data, context): return data\n")
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"handler": "h"}}))
    assert resolve(place, "nameless.mar", model_name="given").key == ModelKey("given", "1.0")
    with pytest.raises(ArchiveError, match=r"^Model name is not defined\.$"):
        resolve(place, "nameless.mar")
