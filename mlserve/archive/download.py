"""Fetch an archive into the model store, from places that the operator allowed and nowhere else.

Nothing is opened before the URL has matched ``models.allowed_urls`` as a whole, and every redirect has to match again.
A pattern that would match any host (``https?://.*``) opens the public Internet only: addresses that are not global
(loopback, private, link-local with the clouds' metadata services) need a pattern that names the host, or
``models.private_urls``. The address that was checked is the one that is connected to, so a second DNS answer changes
nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from mlserve.archive.names import check_member_name
from mlserve.errors import ArchiveError, DownloadError, ModelNotFound

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

CHUNK = 1 << 20
MAX_REDIRECTS = 5
SCHEMES = ("http", "https", "file")
_SCHEME = re.compile(r"(https?|file):", re.IGNORECASE)
_UNFIT = re.compile(r"[\s\\\x00-\x1f\x7f]")  # parsers disagree about the host of a URL with these
_OTHER_HOST = "any-other-host.invalid"


@dataclass(frozen=True)
class DownloadLimits:
    """``max_bytes`` of one archive; ``timeout`` in seconds for all of it, redirects included."""

    max_bytes: int = 64 << 30
    timeout: float = 1800.0


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL of a kind that can be fetched, rather than a name in the store."""
    return _SCHEME.match(text) is not None


def file_name(url: str) -> str:
    """The last path segment of a URL: the archive's name in the store. Raises :class:`DownloadError` without one."""
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    try:
        if not name or name.startswith(".") or check_member_name(name) != name:
            raise ArchiveError("no file name")
    except ArchiveError as error:
        raise DownloadError(f"Failed to download archive from: {url}", detail=error.message) from None
    return name


class AllowedUrls:
    """``models.allowed_urls``: regular expressions, each to match a whole URL in any case. None allow nothing.

    ``private``: a pattern that matches any host allows private addresses, too (``models.private_urls``).
    """

    def __init__(self, patterns: Sequence[str], *, private: bool = False) -> None:
        self._private = private
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def check(self, url: str) -> None:
        """Raise :class:`ModelNotFound` unless ``url`` may be fetched."""
        if _UNFIT.search(url) or not any(pattern.fullmatch(url) for pattern in self._patterns):
            raise not_allowed(url)

    def meant(self, url: str) -> bool:
        """Whether the operator meant this host, wherever it is: a matching pattern depends on it. Raises ValueError."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        port = f":{parts.port}" if parts.port else ""  # raises ValueError if it is no number
        other = urlunsplit(parts._replace(netloc=f"{user}@{_OTHER_HOST}{port}" if user else f"{_OTHER_HOST}{port}"))
        return self._private or any(p.fullmatch(url) and not p.fullmatch(other) for p in self._patterns)


def not_allowed(url: str, why: str = "") -> ModelNotFound:
    """The error for a URL that must not be fetched; ``why`` is for the log."""
    if why:
        log.warning("refused to fetch %s: %s", url, why)
    return ModelNotFound(f"Given URL {url} does not match any allowed URL(s)", detail=why)


async def download(
    url: str, target: Path, allowed: AllowedUrls, limits: DownloadLimits, headers: dict[str, str] | None = None
) -> None:
    """Fetch ``url`` into the new file ``target``. ``url`` has been checked by the caller.

    Raises :class:`ModelNotFound` when a redirect or an address is not allowed, and :class:`DownloadError` for anything
    else, with the cause in its ``detail`` and in the log. The caller removes ``target`` then.
    """
    import aiohttp

    try:
        if urlsplit(url).scheme.lower() == "file":
            await asyncio.to_thread(_copy_file, url, target, limits)
        else:
            await asyncio.wait_for(_fetch(url, target, allowed, limits, headers or {}), limits.timeout)
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError, _Failed) as error:
        if isinstance(error.__cause__ or error, _Refused) or isinstance(getattr(error, "os_error", None), _Refused):
            raise not_allowed(url, str(error)) from None
        cause = str(error) or f"{type(error).__name__} after {limits.timeout:g} s"
        log.warning("download of %s failed: %s", url, cause)
        raise DownloadError(f"Failed to download archive from: {url}", detail=cause) from None


class _Failed(Exception):
    """The other side's answer is no archive."""


class _Refused(OSError):
    """The host has an address that may not be connected to."""


async def _fetch(url: str, target: Path, allowed: AllowedUrls, limits: DownloadLimits, headers: dict[str, str]) -> None:
    import ssl

    import aiohttp

    for _ in range(MAX_REDIRECTS + 1):
        public_only = not allowed.meant(url)
        _check_literal(url, public_only)
        # Not aiohttp's own context: the server has it made without authorities (mlserve.rest), to start sooner.
        trusted = await asyncio.to_thread(ssl.create_default_context)
        connector = aiohttp.TCPConnector(resolver=_resolver(public_only), use_dns_cache=False, ssl=trusted)
        timeout = aiohttp.ClientTimeout(total=limits.timeout, sock_connect=30, sock_read=60)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, headers=headers) as answer,
        ):
            if answer.status not in (301, 302, 303, 307, 308):
                await _save(answer, target, limits)
                return
            url = urljoin(url, answer.headers.get("Location", ""))
        if not is_url(url) or urlsplit(url).scheme.lower() == "file" or ".." in unquote(url):
            raise not_allowed(url, "a redirect led to it")
        allowed.check(url)
        headers = {}  # meant for the first host
    raise _Failed(f"more than {MAX_REDIRECTS} redirects")


async def _save(answer: aiohttp.ClientResponse, target: Path, limits: DownloadLimits) -> None:
    if answer.status != 200:
        raise _Failed(f"HTTP status {answer.status}")
    too_large = _Failed(f"more than {limits.max_bytes} bytes")
    if (answer.content_length or 0) > limits.max_bytes:
        raise too_large
    done = 0
    with target.open("xb") as file:
        async for piece in answer.content.iter_chunked(CHUNK):
            done += len(piece)
            if done > limits.max_bytes:
                raise too_large
            await asyncio.to_thread(file.write, piece)


def _copy_file(url: str, target: Path, limits: DownloadLimits) -> None:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise _Failed(f"file URL of another host, {parts.netloc!r}")
    source = Path(unquote(parts.path))
    if not source.is_file():
        raise _Failed("not a file")
    if source.stat().st_size > limits.max_bytes:
        raise _Failed(f"more than {limits.max_bytes} bytes")
    with source.open("rb") as file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy, CHUNK)


def is_global(address: str) -> bool:
    """Whether an IP address belongs to the public Internet; IPv4 inside IPv6 counts as IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            ip = inner
        elif ip in ipaddress.ip_network("64:ff9b::/96"):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast


def _check_literal(url: str, public_only: bool) -> None:
    """Addresses written as such are connected to without asking the resolver."""
    host = urlsplit(url).hostname or ""
    try:
        allowed = is_global(host)
    except ValueError:
        return
    if public_only and not allowed:
        raise _Refused(f"{host} is no public address; allowed_urls has to name the host")


def _resolver(public_only: bool) -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult
    from aiohttp.resolver import ThreadedResolver

    class Checked(AbstractResolver):
        """DNS answers, minus hosts with an address that may not be connected to."""

        def __init__(self) -> None:
            self._inner = ThreadedResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await self._inner.resolve(host, port, family)
            for answer in found:
                if public_only and not is_global(answer["host"]):
                    raise _Refused(f"{host} is {answer['host']}, no public address; allowed_urls has to name the host")
            return found

        async def close(self) -> None:
            await self._inner.close()

    return Checked()


def place(part: Path, final: Path) -> bool:
    """Give a finished download its name; False if there is a file of that name by now."""
    try:
        os.link(part, final)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if final.exists():
            return False
        os.rename(part, final)
        return True
    part.unlink()
    return True
