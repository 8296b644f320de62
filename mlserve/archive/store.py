"""The model store: from what a client or the operator names to a directory that a worker can load.

Two doors. :meth:`ModelStore.resolve` is for the management API and trusts nobody: names in the store, paths inside it,
allowed URLs. :meth:`ModelStore.resolve_local` is for start-up, where the operator speaks: also paths anywhere, unpacked
directories, bare handler files and bare model files. Archives are unpacked into ``work_dir``; directories are used
where they are.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from mlserve.archive.download import AllowedUrls, DownloadLimits, download, file_name, is_url, place
from mlserve.archive.extract import unpack
from mlserve.archive.manifest import MANIFEST_DIR, MANIFEST_PATH, read_manifest, split_handler
from mlserve.archive.modelfiles import SUFFIXES, is_model_file, lacks_code, manifest_for, manifest_for_folder
from mlserve.archive.reading import DEFAULT_LIMITS, Limits
from mlserve.archive.requirements import Installing
from mlserve.archive.requirements import prepare as prepare_environment
from mlserve.archive.spec import Sources, build_spec, read_config
from mlserve.core.model import ModelSpec
from mlserve.errors import ArchiveError, ErrorKind, InvalidInput, ModelNotFound, ServeError

log = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".mar", ".tar.gz", ".tgz", ".zip")
T = TypeVar("T")


class ModelStore:
    """A :class:`mlserve.core.ports.ModelSource` over a directory of archives and unpacked models.

    ``root`` is ``None`` where no store is configured. ``defaults`` and ``model_settings`` are the sections
    ``[defaults]`` and ``[model.…]`` of the settings; ``allowed_urls`` are regular expressions; the others are settings
    of ``[models]``.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        work_dir: Path,
        defaults: Mapping[str, Any],
        model_settings: Mapping[str, Mapping[str, Any]],
        allowed_urls: Sequence[str],
        private_urls: bool = False,
        any_directory: bool = False,
        bare_files: bool = True,
        default_handler: str = "",
        installing: Installing | None = None,
        limits: Limits = DEFAULT_LIMITS,
        download_limits: DownloadLimits | None = None,
    ) -> None:
        self._root = _absolute(root) if root is not None else None
        self._models = _absolute(work_dir) / "models"
        self._defaults = defaults
        self._model_settings = model_settings
        self._allowed = AllowedUrls(allowed_urls, private=private_urls)
        self._any_directory = any_directory
        self._bare_files = bare_files
        self._default_handler = default_handler
        self._installing = installing or Installing()
        self._limits = limits
        self._download_limits = download_limits or DownloadLimits()

    def list(self) -> list[Path]:
        """Archives, unpacked models, bare model files and folders in the store, by name: what ``--models all`` loads.

        Weights without their code are logged and left out: they are a part of some model.
        """
        if self._root is None or not self._root.is_dir():
            return []
        there = sorted((one for one in self._root.iterdir() if not one.name.startswith(".")), key=lambda one: one.name)
        found = []
        for path in there:
            if _looks_like_model(path) or (self._bare_files and _is_bare_model(path)):
                found.append(path)
            elif self._bare_files and is_model_file(path):
                log.warning("all: %s is left out: it holds weights, and no model.py with their module is there", path)
        return found

    async def resolve(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        """Find, check and unpack what a client names. See :class:`mlserve.core.ports.ModelSource`."""
        _check_text(url)
        if is_url(url):
            return await self._from_url(url, overrides)
        path = self._inside(url)
        if path is None and self._any_directory:
            path = _absolute_directory(url)
        if path is None or not _exists(path):
            raise ModelNotFound(f"Model not found at: {url}")
        return await self._from_path(path, url, overrides)

    async def resolve_local(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        """As :meth:`resolve`, for the operator: ``url`` may also be a path outside the store, and a handler file
        (``file.py`` or ``file.py:function``). A name in the store comes before a path of the same name."""
        if not url:
            raise ModelNotFound("empty url")
        if is_url(url):
            return await self.resolve(url, overrides)
        inside = self._inside(url) if ".." not in url else None
        for path in (inside, _absolute(url), _handler_file(url, self._root)):
            if path is not None and _exists(path):
                return await self._from_path(path, url, overrides)
        store = f" in the model store {self._root} and" if self._root else ""
        raise ModelNotFound(f"Model not found at: {url} (looked{store} in {Path.cwd()})")

    def release(self, spec: ModelSpec) -> None:
        """Remove what was unpacked for this version; directories that are the operator's own stay."""
        path = Path(spec.model_dir)
        if not spec.owned_dir or path.parent != self._models:
            return
        gone = path.with_name(f".{path.name}.gone")
        try:
            os.rename(path, gone)
        except FileNotFoundError:
            return
        try:  # gigabytes take a while to unlink
            asyncio.get_running_loop().run_in_executor(None, _remove, gone)
        except RuntimeError:
            _remove(gone)

    def forget(self, spec: ModelSpec) -> None:
        """Remove the archive that was downloaded for this version, so that its URL can be registered again."""
        if is_url(spec.url) and self._root is not None:
            (self._root / file_name(spec.url)).unlink(missing_ok=True)

    def _inside(self, url: str) -> Path | None:
        """The path that a name or absolute path stands for, ``None`` unless it lies below the store.

        Links inside the store may lead out of it: only its owner can make them.
        """
        if self._root is None or "\0" in url:
            return None
        path = Path(os.path.normpath(self._root / url))
        if path.is_relative_to(self._root.resolve()):
            path = self._root / path.relative_to(self._root.resolve())
        return path if path.is_relative_to(self._root) and path != self._root else None

    async def _from_url(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        self._allowed.check(url)
        name = file_name(url)
        if self._root is None:
            raise InvalidInput(f"{url} cannot be kept: models.store is not set")
        final = self._root / name
        exists = ServeError(f"Model file already exists {name}", kind=ErrorKind.INTERNAL)
        if final.exists() or final.is_symlink():
            raise exists
        part = self._root / f".{name[:40]}.{secrets.token_hex(8)}.part"
        headers = {"x-amz-server-side-encryption": "aws:kms"} if overrides.get("s3_sse_kms") else None
        try:
            await download(url, part, self._allowed, self._download_limits, headers)
            # Named only once it has proved to be a model, or a bad download would block every later try.
            try:
                spec = await self._from_path(part, url, overrides, stem=_stem(name))
            except ArchiveError as error:
                raise ArchiveError(error.message.replace(part.name, name)) from error
            if not await asyncio.to_thread(place, part, final):
                self.release(spec)
                raise exists
        finally:
            part.unlink(missing_ok=True)
        return spec

    async def _from_path(self, path: Path, url: str, overrides: Mapping[str, Any], *, stem: str = "") -> ModelSpec:
        target = self._models / secrets.token_hex(16)
        overrides, stop = dict(overrides), threading.Event()

        def prepare() -> ModelSpec:
            owned = path.is_file() and not _is_handler(path) and not is_model_file(path)
            try:
                directory = self._directory(path, target, url, overrides)
                manifest = _manifest(path, directory, named=bool(overrides.get("model_name")))
                config, config_name = read_config(directory, manifest)
                spec = build_spec(
                    Sources(
                        directory,
                        url,
                        stem or _stem(path.name),
                        overrides,
                        manifest,
                        config,
                        config_name,
                        self._defaults,
                        self._model_settings,
                        self._default_handler,
                        owned,
                    )
                )
                scratch = self._models / f"{target.name}-packages"
                return prepare_environment(spec, scratch, self._installing, stop)
            except BaseException as error:
                if owned:
                    _remove(target)
                if isinstance(error, OSError):
                    raise ArchiveError(f"Cannot read model {url}: {error.strerror or error}") from error
                raise

        return await _in_thread(prepare, self.release, stop)

    def _directory(self, path: Path, target: Path, url: str, overrides: dict[str, Any]) -> Path:
        """Where the model lies, unpacked: ``target`` for an archive, else where it is."""
        if path.is_dir():
            return _only_subdirectory(path)
        if _is_handler(path):
            function = split_handler(url)[1]
            overrides.setdefault("handler", f"{path.name}:{function}" if function else path.name)
            return path.parent
        if is_model_file(path):
            return path.parent
        self._models.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return unpack(path, target, limits=self._limits)
        except ArchiveError as error:
            if path.name.endswith(ARCHIVE_SUFFIXES):
                raise
            raise ArchiveError(
                f"{error.message}. Model files that need no archive end in {', '.join(SUFFIXES)}"
            ) from error


def _check_text(url: str | None) -> None:
    """What no client may say, before anything is looked up."""
    if url is None:
        raise InvalidInput("Parameter url is required.")
    if not url:
        raise ModelNotFound("empty url")
    if ".." in url or ".." in unquote(url):
        raise ModelNotFound(f"Relative path is not allowed in url: {url}")


def _looks_like_model(path: Path) -> bool:
    if path.is_dir():
        return (path / MANIFEST_PATH).is_file() or (_only_subdirectory(path) / MANIFEST_PATH).is_file()
    return path.name.endswith(ARCHIVE_SUFFIXES)


def _is_bare_model(path: Path) -> bool:
    """Whether a model file or folder can be served as it is."""
    if path.is_dir():
        return manifest_for_folder(_only_subdirectory(path)) is not None
    return is_model_file(path) and not lacks_code(path)


def _only_subdirectory(path: Path) -> Path:
    """A directory that holds nothing but one other stands for that one; ``MAR-INF`` alone is a model already."""
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and entries[0].name != MANIFEST_DIR else path


def _manifest(path: Path, directory: Path, *, named: bool) -> dict[str, Any] | None:
    """The model's own manifest, or the one made up for a file or folder that has none; ``None`` for a bare handler."""
    if is_model_file(path):
        return manifest_for(path)
    return None if _is_handler(path) else read_manifest(directory, named=named) or manifest_for_folder(directory)


def _is_handler(path: Path) -> bool:
    return path.suffix == ".py" and path.is_file()


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))


def _absolute_directory(url: str) -> Path | None:
    return Path(url) if os.path.isabs(url) and os.path.isdir(url) else None


def _exists(path: Path) -> bool:
    """False also for what no file system can hold: a name of 10 kB, a NUL."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _handler_file(url: str, root: Path | None) -> Path | None:
    """The file of ``file.py:function``, in the store or from the current directory."""
    try:
        text = split_handler(url)[0]
    except ArchiveError:
        return None
    for path in ([root / text] if root else []) + [Path(text)]:
        if path.suffix == ".py" and path.is_file():
            return _absolute(path)
    return None


def _stem(name: str) -> str:
    """``resnet18.tar.gz`` -> ``resnet18``."""
    suffix = next((end for end in (*ARCHIVE_SUFFIXES, ".py", *SUFFIXES) if name.endswith(end)), "")
    return name.removesuffix(suffix)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        log.warning("could not remove %s", path)


async def _in_thread(
    work: Callable[[], ModelSpec], undo: Callable[[ModelSpec], None], stop: threading.Event
) -> ModelSpec:
    """Run ``work`` in a thread. If the caller is cancelled, ``stop`` is set, and a result that comes yet is undone."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        task.add_done_callback(lambda done: undo(done.result()) if not (done.cancelled() or done.exception()) else None)
        raise
