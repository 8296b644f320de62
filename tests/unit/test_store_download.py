"""Registering from URLs: default deny, redirects, addresses, caps, and a store that no failed download touches."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mlserve.archive import download as module
from mlserve.archive import pack
from mlserve.archive.download import AllowedUrls, DownloadLimits, file_name, is_global, is_url
from mlserve.archive.store import ModelStore
from mlserve.core.model import ModelSpec
from mlserve.errors import ArchiveError, DownloadError, ErrorKind, ModelNotFound, ServeError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    (tmp_path / "remote").mkdir()
    pack(model_name="net", version="1.0", handler="base_handler", export_path=tmp_path / "remote")
    (tmp_path / "remote" / "junk.mar").write_bytes(b"junk")
    return tmp_path


class Remote:
    """An HTTP server on a free port of 127.0.0.1 that counts what it is asked for."""

    def __init__(self, folder: Path, redirects: dict[str, str]) -> None:
        self._folder = folder
        self._redirects = redirects
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.base = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.path)
        self.headers.append(dict(request.headers))
        if request.path in self._redirects:
            where = self._redirects[request.path].replace("BASE", self.base)
            return web.Response(status=302, headers={"Location": where})
        if request.path == "/slow.mar":
            await asyncio.sleep(5)
        if request.path == "/endless.mar":
            answer = web.StreamResponse()
            await answer.prepare(request)
            for _ in range(100):
                await answer.write(bytes(1000))
            return answer
        path = self._folder / request.path.strip("/")
        if not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)

    async def __aenter__(self) -> "Remote":
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await (site := web.TCPSite(self._runner, "127.0.0.1", 0)).start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.base = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


OWN_HOST = (r"http://127\.0\.0\.1:[0-9]+/.*",)


def run(
    place: Path,
    use: Callable[[ModelStore, Remote], Awaitable[None]],
    allowed: Sequence[str] = OWN_HOST,
    redirects: dict[str, str] | None = None,
    **limits: Any,
) -> Remote:
    async def body() -> Remote:
        models = ModelStore(
            place / "store",
            work_dir=place / "work",
            defaults={},
            model_settings={},
            allowed_urls=allowed,
            download_limits=DownloadLimits(**limits),
        )
        async with Remote(place / "remote", redirects or {}) as remote:
            await use(models, remote)
            return remote

    return asyncio.run(body())


def nothing_left(place: Path) -> bool:
    models = place / "work" / "models"
    return list((place / "store").iterdir()) == [] and (not models.exists() or list(models.iterdir()) == [])


def failing(
    place: Path, path: str, error: type[ServeError], allowed: Sequence[str] = OWN_HOST, **limits: Any
) -> Remote:
    """Registering ``path`` fails with ``error`` and leaves nothing in the store or the work directory."""

    async def use(models: ModelStore, remote: Remote) -> None:
        url = path if path.startswith("http") else remote.base + path
        with pytest.raises(error) as caught:
            await models.resolve(url, {})
        if error is ModelNotFound:
            assert caught.value.message.startswith("Given URL ")
            assert caught.value.message.endswith(" does not match any allowed URL(s)")
        if error is DownloadError:
            assert caught.value.message == f"Failed to download archive from: {url}"

    remote = run(place, use, allowed, **limits)
    assert nothing_left(place)
    return remote


def test_allowed_url_is_kept_in_the_store(place: Path) -> None:
    async def use(models: ModelStore, remote: Remote) -> None:
        url = f"{remote.base}/net.mar?signature=x"
        spec: ModelSpec = await models.resolve(url, {"s3_sse_kms": True})
        assert (spec.key.name, spec.url) == ("net", url)
        assert [path.name for path in (place / "store").iterdir()] == ["net.mar"]
        assert remote.headers[0]["x-amz-server-side-encryption"] == "aws:kms"
        with pytest.raises(ServeError, match=r"^Model file already exists net\.mar$") as error:
            await models.resolve(url, {})
        assert error.value.kind is ErrorKind.INTERNAL
        assert len(remote.seen) == 1
        models.release(spec)
        own = await models.resolve("net.mar", {})
        assert own.key.name == "net"
        models.forget(own)
        assert [path.name for path in (place / "store").iterdir()] == ["net.mar"], "an owner's archive was removed"
        models.forget(spec)
        assert list((place / "store").iterdir()) == [], "its URL cannot be registered again"

    run(place, use)


@pytest.mark.parametrize(
    "allowed",
    [(), ("https://.*",), ("http://127",), (r"http://127\.0\.0\.1:[0-9]+/other/.*",), (r"http://example\.com/.*",)],
)
def test_url_that_is_not_allowed_is_never_asked_for(place: Path, allowed: tuple[str, ...]) -> None:
    assert failing(place, "/net.mar", ModelNotFound, allowed).seen == []


@pytest.mark.parametrize("allowed", [("https?://.*",), ("http(s)?://.*", "file://.*"), (".*",), ("http://[^/]+/.*",)])
def test_pattern_for_every_host_does_not_open_the_inside(place: Path, allowed: tuple[str, ...]) -> None:
    assert failing(place, "/net.mar", ModelNotFound, allowed).seen == []


@pytest.mark.parametrize(
    "host", ["localhost", "2130706433", "0x7f.1", "0", "[::ffff:127.0.0.1]", "127.0.0.1.", "017700000001"]
)
def test_loopback_in_disguise(place: Path, host: str) -> None:
    async def use(models: ModelStore, remote: Remote) -> None:
        port = remote.base.rpartition(":")[2]
        with pytest.raises((ModelNotFound, DownloadError)):
            await models.resolve(f"http://{host}:{port}/net.mar", {})

    assert run(place, use, ["https?://.*"]).seen == []
    assert nothing_left(place)


def test_second_dns_answer_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is looked up once, and what was checked is what is connected to."""
    asked: list[str] = []

    def lookup(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)

    async def twice() -> None:
        resolver = module._resolver(public_only=True)
        assert [answer["host"] for answer in await resolver.resolve("rebind.test", 80)] == ["93.184.216.34"]
        with pytest.raises(OSError, match="no public address"):
            await resolver.resolve("rebind.test", 80)

    asyncio.run(twice())


@pytest.mark.parametrize(
    "to",
    [
        "http://localhost:1/net.mar",
        "http://169.254.169.254/x.mar",
        "file:///etc/passwd",
        "BASE/%2e%2e/net.mar",
        "gopher://x/y",
    ],
)
def test_redirect_to_what_is_not_allowed(place: Path, to: str) -> None:
    for allowed in (OWN_HOST, (*OWN_HOST, "https?://.*")):
        remote = failing(place, "/a.mar", ModelNotFound, allowed, redirects={"/a.mar": to})
        assert remote.seen == ["/a.mar"]


def test_redirect_to_what_is_allowed(place: Path) -> None:
    async def use(models: ModelStore, remote: Remote) -> None:
        spec = await models.resolve(f"{remote.base}/latest.mar", {"s3_sse_kms": True})
        assert spec.key.name == "net"
        assert (place / "store" / "latest.mar").is_file()
        assert "x-amz-server-side-encryption" not in remote.headers[1]

    run(place, use, redirects={"/latest.mar": "/net.mar"})


def test_redirects_end(place: Path) -> None:
    remote = failing(place, "/a.mar", DownloadError, redirects={"/a.mar": "BASE/b.mar", "/b.mar": "/a.mar"})
    assert len(remote.seen) == module.MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "path", ["/gone.mar", "/", "/.hidden.mar", "/a%2fb/", "http://127.0.0.1:1/net.mar", "http://127.0.0.1:aaaa/net.mar"]
)
def test_failed_download_says_what_torchserve_says(place: Path, path: str) -> None:
    failing(place, path, DownloadError, [".*127.*"])


def test_too_large_or_too_slow(place: Path) -> None:
    (place / "remote" / "big.mar").write_bytes(bytes(50_001))
    failing(place, "/big.mar", DownloadError, max_bytes=50_000)
    failing(place, "/endless.mar", DownloadError, max_bytes=50_000)
    failing(place, "/slow.mar", DownloadError, timeout=0.1)


def test_junk_is_not_kept_so_that_a_later_try_can_succeed(place: Path) -> None:
    failing(place, "/junk.mar", ArchiveError)


def test_file_url(place: Path) -> None:
    async def use(models: ModelStore, remote: Remote) -> None:
        folder = place / "remote"
        with pytest.raises(ModelNotFound, match="does not match"):
            await models.resolve(f"file://{place}/secret.mar", {})
        with pytest.raises(DownloadError):
            await models.resolve(f"file://{folder}/gone.mar", {})
        with pytest.raises(DownloadError):
            await models.resolve(f"file://otherhost{folder}/net.mar", {})
        assert nothing_left(place)
        assert (await models.resolve(f"FILE://{folder}/net.mar", {})).key.name == "net"
        assert (place / "store" / "net.mar").is_file()

    run(place, use, [f"file://(otherhost)?{place}/remote/.*"])


def test_no_store_to_keep_it_in(place: Path) -> None:
    models = ModelStore(None, work_dir=place, defaults={}, model_settings={}, allowed_urls=(".*",))
    with pytest.raises(ServeError, match=r"models\.store"):
        asyncio.run(models.resolve("http://127.0.0.1/net.mar", {}))


@pytest.mark.parametrize("url", ["http://a\\@b/x.mar", "http://a b/x", "http://a/x\r\nHost: b", "http://a/\tx"])
def test_url_that_parsers_read_differently_is_not_allowed(url: str) -> None:
    with pytest.raises(ModelNotFound):
        AllowedUrls([r"(?s).*"]).check(url)


def test_patterns_match_whole_urls_in_any_case() -> None:
    allowed = AllowedUrls([r"https://good\.example/.*\.mar"])
    allowed.check("HTTPS://Good.Example/a.MAR")
    for url in ("https://good.example/a.mar?x=1", "xhttps://good.example/a.mar", "https://goodXexample/a.mar"):
        with pytest.raises(ModelNotFound):
            allowed.check(url)


@pytest.mark.parametrize(
    ("pattern", "url", "named"),
    [
        (r"https?://.*", "http://10.0.0.1/x", False),
        (r"http://10\.0\.0\.1(:\d+)?/.*", "http://10.0.0.1:9000/x", True),
        (r"http://minio:9000/.*", "http://minio:9000/x", True),
        (r"http://[^/]*\.corp/.*", "http://a.corp/x", True),
        (r"http://[^/]+:9000/.*", "http://a:9000/x", False),
        (r"http://.*@.*", "http://u:p@a/x", False),
        (r"http://\[::1\]:1/.*", "http://[::1]:1/x", True),
    ],
)
def test_whether_a_pattern_names_the_host(pattern: str, url: str, named: bool) -> None:
    assert AllowedUrls([pattern]).meant(url) is named
    assert AllowedUrls([pattern], private=True).meant(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "fd00:ec2::254",
    ],
)  # fmt: skip
def test_address_that_is_not_public(address: str) -> None:
    assert not is_global(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_address_that_is_public(address: str) -> None:
    assert is_global(address)


def test_what_is_a_url_and_its_name() -> None:
    assert all(map(is_url, ["http://a", "HTTPS://a", "file:/a", "file:///a"]))
    assert not any(map(is_url, ["a.mar", "/a/http:", "s3://a", "httpx.mar"]))
    assert file_name("https://h/a/b%20c.mar?x=/d.mar#/e") == "b c.mar"
    for url in ("https://h", "https://h/", "https://h/.x", "https://h/a%5Cb", "https://h/a%00"):
        with pytest.raises(DownloadError):
            file_name(url)
