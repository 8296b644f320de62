"""Calls of the management API that must be refused, and model stores full of archives that must not be believed."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from support.bad_requests import Case, only
from support.raw import get, post

MANIFEST = '{"model": {"modelName": "bad", "modelVersion": "1", "handler": "echo.py"}, "runtime": "python"}'
HANDLER = "def handle(data, context):\n    return ['believed'] * len(data)\n"


def call_cases() -> list[Case]:
    """For the management port of a server with a model ``echo``, version 1.0, of one worker."""
    return [*_registrations(), *_changes(), *_methods()]


def _call(method: str, path: str, *statuses: int, mentions: str = "") -> Case:
    data = f"{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n".encode()
    return Case(f"{method} {path[:60]}", data, only(*statuses), mentions=mentions)


def _registrations() -> Iterator[Case]:
    yield _call("POST", "/models", 400, mentions="url is required")
    yield _call("POST", "/models?url=", 404)
    for url in (
        "unknown.mar", "../echo.mar", "/etc/passwd", "a/../../b.mar", "https://example.com/x.mar", "ftp://h/x.mar",
        "file:///etc/passwd", "http://127.0.0.1:1/x.mar", "s3://bucket/x.mar", "\\\\host\\x.mar", "~/x.mar", "%00.mar",
        "echo.mar\r\nx: y", "a" * 5000 + ".mar", "https://[::1", "://", ".", "echo.py/",
    ):  # fmt: skip
        yield _call("POST", f"/models?url={quote(url)}", 400, 403, 404)
    for parameter in (
        "batch_size=0", "batch_size=-1", "max_batch_delay=-1", "response_timeout=0", "response_timeout=-5",
        "startup_timeout=0", "initial_workers=100000", "runtime=LUA", "runtime=java",
        "model_name=a/b", "model_name=" + "n" * 300, "model_name=%20", "model_name=-x", "model_name=%0a",
    ):  # fmt: skip
        yield _call("POST", f"/models?{parameter}&url=good.mar&initial_workers=1", 400)
    yield _call("POST", "/models?url=echo.py", 400, 403, 404, 409)
    for body in (
        b"{", b"[]", b"1", b'"url"', b'{"url": 5}', b'{"url": ["good.mar"]}', b'{"url": {}}', b"\xff", b"null",
        b'{"url": "good.mar", "batch_size": 0}', b'{"url": "good.mar", "model_name": 7}',
    ):  # fmt: skip
        yield Case(f"register {body!r}", post("/models", body, "content-type: application/json"), only(400))
    large = post("/models", b"[" + b" " * (1 << 20) + b"]", "content-type: application/json")
    yield Case("register with 1 MiB", large, only(413))


def _changes() -> Iterator[Case]:
    yield _call("PUT", "/models/unknown?min_worker=1", 404)
    yield _call("PUT", "/models/echo/9.9?min_worker=1", 404)
    for query in ("min_worker=-1", "min_worker=5&max_worker=2", "min_worker=99999", "min_worker=1&max_worker=99999"):
        yield _call("PUT", f"/models/echo?{query}", 400, mentions="worker")
    yield _call("PUT", "/models/unknown/1.0/set-default", 404)
    yield _call("PUT", "/models/echo/9.9/set-default", 404)
    yield _call("DELETE", "/models/unknown", 404)
    yield _call("DELETE", "/models/echo/9.9", 404)
    for path in ("/models/unknown", "/models/echo/9.9", "/models/unknown/all", "/models//echo", "/models/%zz",
                 "/models/echo%00", "/nothing", "/", "/v1/models/unknown", "/models/" + "m" * 3000):  # fmt: skip
        yield Case(f"GET {path[:40]}", get(path), only(400, 404, 405))


def _methods() -> Iterator[Case]:
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        yield _call(method, "/models", 405)
    for method in ("POST", "PATCH"):
        yield _call(method, "/models/echo", 405)
    for method in ("POST", "DELETE", "PATCH"):
        yield _call(method, "/models/echo/1.0/set-default", 404, 405)
    both = b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    data = b"POST /models?url=good.mar HTTP/1.1\r\nhost: test\r\n" + both
    yield Case("two lengths", data, only(400), broken=True)


def write_bad_archives(store: Path, good: Path) -> list[str]:
    """Put archives that cannot be used into ``store``, made from the good one; their file names."""
    rng = random.Random(5)
    whole = good.read_bytes()
    contents = {f"cut-{size}.mar": whole[:size] for size in sorted(rng.sample(range(len(whole) - 1), 24))}
    for number in range(10):
        contents[f"noise-{number}.mar"] = rng.randbytes(rng.randrange(1, 3000))
    for name, member in {
        "slip": "../../slipped.py", "absolute": "/tmp/slipped.py", "backslash": "..\\slipped.py",
        "dots": "a/../../slipped.py", "long": "d/" * 2500 + "x.py",
    }.items():  # fmt: skip
        contents[f"zip-{name}.mar"] = _zip({"MAR-INF/MANIFEST.json": MANIFEST, "echo.py": HANDLER, member: "slipped"})
    manifests = {
        "empty": "", "no-json": "{", "list": "[]", "no-model": "{}", "number": '{"model": 5}',
        "no-name": '{"model": {"handler": "echo.py", "modelVersion": "1"}}',
        "name": MANIFEST.replace('"bad"', '"../bad"'),
        "runtime": MANIFEST.replace('"python"', '"lua"'),
        "config": MANIFEST.replace('"handler"', '"configFile": "model-config.yaml", "handler"'),
    }  # fmt: skip
    for name, manifest in manifests.items():
        contents[f"manifest-{name}.mar"] = _zip({"MAR-INF/MANIFEST.json": manifest, "echo.py": HANDLER})
    contents["link.mar"] = _zip_with_link()
    contents["link.tar.gz"] = _tar_with_link()
    contents["empty.mar"] = b""
    contents["yaml.mar"] = _zip(
        {"MAR-INF/MANIFEST.json": manifests["config"], "echo.py": HANDLER, "model-config.yaml": "minWorkers: [1"}
    )
    for name, data in contents.items():
        (store / name).write_bytes(data)
    (store / "directory.mar").mkdir()
    (store / "loop.mar").symlink_to("loop.mar")
    (store / "outside.mar").symlink_to("/etc/hostname")
    return [*contents, "directory.mar", "loop.mar", "outside.mar"]


def _zip(members: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return data.getvalue()


def _zip_with_link() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
        link = zipfile.ZipInfo("echo.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return data.getvalue()


def _tar_with_link() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        manifest = tarfile.TarInfo("MAR-INF/MANIFEST.json")
        manifest.size = len(MANIFEST)
        archive.addfile(manifest, io.BytesIO(MANIFEST.encode()))
        link = tarfile.TarInfo("echo.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return data.getvalue()
