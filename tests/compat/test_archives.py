"""What the server takes for a model: manifests, containers and directories, registered or named at start."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.drop_in import DropIn
from support.server import Reply

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    return [{"name": context.model_name, "manifest": context.manifest}] * len(data)
"""
NAMELESS = "Model name is not defined."


def manifest(name: str | None, drop: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """One in torch-model-archiver's form, less the keys of ``drop``."""
    model = {"modelName": name, "handler": "h.py", "modelVersion": "1.0", **more}
    whole = {"createdOn": "01/01/2024 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    return {
        key: {k: v for k, v in value.items() if k not in drop} if isinstance(value, dict) else value
        for key, value in whole.items()
        if key not in drop
    }


def write(store: Path, name: str, document: object, **files: str) -> None:
    """``name.mar`` with this manifest (text as it is; None = without one)."""
    with zipfile.ZipFile(store / f"{name}.mar", "w") as packed:
        if document is not None:
            packed.writestr("MAR-INF/MANIFEST.json", document if isinstance(document, str) else json.dumps(document))
        for member, text in (files or {"h.py": HANDLER}).items():
            packed.writestr(member, text)


def write_tar(path: Path, name: str, top: str) -> None:
    """The same as a gzip-compressed tar."""
    with tarfile.open(path, "w:gz") as packed:
        for member, text in {"h.py": HANDLER, "MAR-INF/MANIFEST.json": json.dumps(manifest(name))}.items():
            info = tarfile.TarInfo(f"{top}{member}")
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One archive for each row below."""
    folder = tmp_path_factory.mktemp("archives")
    old = {"modelServerVersion": "1.0", "implementationVersion": "1.0", "description": "d", "license": "l"}
    write(folder, "old", {**manifest("old"), **old})
    write(folder, "nomodel", manifest(None, ("model",)))
    write(folder, "noname", manifest(None, ("modelName",)))
    write(folder, "noruntime", manifest("noruntime", ("runtime",)))
    write(folder, "badruntime", {**manifest("badruntime"), "runtime": "java"})
    write(folder, "noversion", manifest("noversion", ("modelVersion",)))
    write(folder, "intversion", manifest("intversion", modelVersion=2))
    write(folder, "envelope", manifest("envelope", envelope="json"))
    write(folder, "functioned", manifest("functioned", handler="h:handle"))
    write(folder, "below", manifest("below", handler="sub/h.py"), **{"sub/h.py": HANDLER, "h.py": HANDLER})
    write(folder, "cased", manifest("cased"), **{"h.py": HANDLER, "README": "1", "readme": "2"})
    write(folder, "nothing", None)
    write(folder, "unhandled", manifest("unhandled", ("handler",)))
    write(folder, "badjson", "{")
    write(folder, "slip", manifest("slip"), **{"h.py": HANDLER, "../evil.txt": "x"})
    write_tar(folder / "tarred.tar.gz", "tarred", "tarred/")
    write_tar(folder / "dotted.tar.gz", "dotted", "./")
    write_tar(folder / "odd.bin", "odd", "top/")
    for directory in ("plain", "wrapped/inner"):
        (folder / directory / "MAR-INF").mkdir(parents=True)
        (folder / directory / "h.py").write_text(HANDLER)
        (folder / directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest(directory.split("/")[0])))
    return folder


@pytest.fixture(scope="module")
def server(start: Callable[..., DropIn], store: Path) -> DropIn:
    """With two models named at start, one under another name, and two that cannot load."""
    return start({}, "--models", "first=old.mar", "nothing.mar", "missing.mar", "badruntime.mar", store=store)


def register(server: DropIn, query: str) -> Reply:
    """Register with one worker, and wait for it."""
    return server.manage("POST", f"/models?{query}&initial_workers=1&synchronous=true")


def ask(server: DropIn, name: str) -> Any:
    """What the handler says of its model."""
    reply = server.ask("POST", f"/predictions/{name}", b"x", {"Content-Type": "application/octet-stream"})
    assert reply.status == 200, reply
    return reply.json()


@pytest.mark.parametrize(
    ("query", "name", "version"),
    [
        ("url=old.mar", "old", "1.0"),
        ("url=noname.mar&model_name=given", "given", "1.0"),
        ("url=noruntime.mar", "noruntime", "1.0"),
        ("url=noversion.mar", "noversion", "1.0"),
        ("url=intversion.mar", "intversion", "2"),
        ("url=envelope.mar", "envelope", "1.0"),
        ("url=functioned.mar", "functioned", "1.0"),
        ("url=below.mar", "below", "1.0"),
        ("url=cased.mar", "cased", "1.0"),
        ("url=nothing.mar&model_name=bare&handler=h.py", "bare", "1.0"),
        ("url=unhandled.mar&handler=h.py", "unhandled", "1.0"),
        ("url=tarred.tar.gz", "tarred", "1.0"),
        ("url=dotted.tar.gz", "dotted", "1.0"),
        ("url=odd.bin", "odd", "1.0"),
        ("url=plain", "plain", "1.0"),
        ("url=wrapped", "wrapped", "1.0"),
        ("url=old.mar&model_name=renamed", "renamed", "1.0"),
    ],
)
def test_an_archive_registers_and_serves(server: DropIn, query: str, name: str, version: str) -> None:
    reply = register(server, query)
    assert reply.json() == {"status": f'Model "{name}" Version: {version} registered with 1 initial workers'}
    said = ask(server, name)
    assert said["name"] == name
    if name == "renamed":
        assert said["manifest"]["model"]["modelName"] == "old"
    if name == "old":
        assert said["manifest"]["license"] == "l"
    server.status("DELETE", f"/models/{name}")


def test_an_absolute_directory_registers(server: DropIn, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "plain", tmp_path / "elsewhere")
    assert register(server, f"url={tmp_path / 'elsewhere'}&model_name=elsewhere").status == 200
    assert ask(server, "elsewhere")["name"] == "elsewhere"
    server.status("DELETE", "/models/elsewhere")
    assert (tmp_path / "elsewhere" / "h.py").exists()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("url=nomodel.mar", NAMELESS),
        ("url=noname.mar", NAMELESS),
        ("url=badruntime.mar", "Runtime is not defined or invalid."),
    ],
)
def test_a_manifest_that_lacks_something_is_refused_in_torchserves_words(
    server: DropIn, query: str, message: str
) -> None:
    reply = register(server, query)
    assert (reply.status, reply.error()) == (400, (400, "InvalidModelException", message))


def test_a_manifest_that_does_not_parse_is_refused(server: DropIn) -> None:
    assert register(server, "url=badjson.mar").error()[:2] == (400, "InvalidModelException")


@pytest.mark.parametrize(
    ("query", "difference"),
    [("url=slip.mar", "bad-archive"), ("url=unhandled.mar&model_name=u2", "no-handler")],
)
def test_a_mistake_is_told_when_it_is_made(
    server: DropIn, differs: Callable[[str], None], query: str, difference: str
) -> None:
    differs(difference)
    assert register(server, query).error()[:2] == (400, "InvalidModelException")


def test_a_bad_model_at_start_leaves_the_others(server: DropIn) -> None:
    listed = {one["modelName"]: one["modelUrl"] for one in server.manage("GET", "/models?limit=100").json()["models"]}
    assert listed == {"first": "old.mar", "nothing": "nothing.mar"}
    (described,) = server.manage("GET", "/models/first").json()
    assert (described["modelVersion"], described["loadedAtStartup"]) == ("1.0", True)
    assert ask(server, "first")["name"] == "first"
