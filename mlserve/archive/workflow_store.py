"""The workflow store: from what a client names to an unpacked workflow. The rules are those of the model store."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlserve.archive.download import AllowedUrls, DownloadLimits, download, file_name, is_url, place
from mlserve.archive.extract import unpack
from mlserve.archive.names import check_member_name
from mlserve.archive.packing import WORKFLOW_MANIFEST_PATH
from mlserve.archive.reading import DEFAULT_LIMITS
from mlserve.archive.spec import Sources, build_spec
from mlserve.archive.yamlfile import parse_config
from mlserve.core.model import ModelSpec
from mlserve.core.workflows import WorkflowFiles
from mlserve.errors import ArchiveError, ErrorKind, InvalidInput, InvalidWorkflow, ServeError, WorkflowNotFound

log = logging.getLogger(__name__)


class WorkflowStore:
    """See ``core.workflows.WorkflowSource``. ``root`` is ``None`` where no store is configured."""

    def __init__(
        self,
        root: Path | None,
        *,
        work_dir: Path,
        defaults: Mapping[str, Any],
        allowed_urls: Sequence[str],
        private_urls: bool = False,
    ) -> None:
        self._root = Path(os.path.abspath(root)) if root is not None else None
        self._unpacked = Path(os.path.abspath(work_dir)) / "workflows"
        self._defaults = defaults
        self._allowed = AllowedUrls(allowed_urls, private=private_urls)
        self._download_limits = DownloadLimits()

    async def resolve(self, url: str, workflow_name: str = "", *, s3_sse_kms: bool = False) -> WorkflowFiles:
        """Find, check and unpack. See ``core.workflows.WorkflowSource``."""
        if self._root is None:
            raise WorkflowNotFound("Workflow store has not been configured.")
        if not url:
            raise WorkflowNotFound("Workflow not found at: ")
        if is_url(url):
            return await self._from_url(url, workflow_name, s3_sse_kms)
        return await asyncio.to_thread(self._open, self._inside(self._root, url), url, workflow_name)

    def function_spec(self, files: WorkflowFiles, model: str, function: str) -> ModelSpec:
        """See ``core.workflows.WorkflowSource``."""
        if not files.handler:
            raise InvalidWorkflow(f"Workflow {files.name} has no handler file, but its node {function} is a function")
        overrides = {
            "model_name": model,
            "handler": f"{files.handler}:{function}",
            "min_workers": 1,
            "max_workers": 1,
            "batch_size": 1,
            "max_batch_delay_ms": 0,
            "workflow": files.name,
            "listed": False,
        }
        return build_spec(
            Sources(Path(files.directory), files.url, model, overrides, defaults=self._defaults, owned_dir=False)
        )

    def release(self, files: WorkflowFiles) -> None:
        """See ``core.workflows.WorkflowSource``."""
        path = Path(files.directory)
        if path.parent == self._unpacked:
            shutil.rmtree(path, ignore_errors=True)

    def forget(self, files: WorkflowFiles) -> None:
        """See ``core.workflows.WorkflowSource``."""
        if is_url(files.url) and self._root is not None:
            (self._root / file_name(files.url)).unlink(missing_ok=True)

    @staticmethod
    def _inside(root: Path, url: str) -> Path:
        if ".." in url or "\0" in url:
            raise WorkflowNotFound(f"Relative path is not allowed in url: {url}")
        path = Path(os.path.normpath(root / url))
        try:
            found = path.is_relative_to(root) and path != root and path.exists()
        except OSError:  # a name that no file can have
            found = False
        if not found:
            raise WorkflowNotFound(f"Workflow not found in workflow store: {url}")
        return path

    async def _from_url(self, url: str, workflow_name: str, s3_sse_kms: bool) -> WorkflowFiles:
        assert self._root is not None
        self._allowed.check(url)
        name = file_name(url)
        final = self._root / name
        exists = ServeError(f"Workflow file already exists {name}", kind=ErrorKind.INTERNAL)
        if final.exists() or final.is_symlink():
            raise exists
        part = self._root / f".{name[:40]}.{secrets.token_hex(8)}.part"
        headers = {"x-amz-server-side-encryption": "aws:kms"} if s3_sse_kms else None
        try:
            await download(url, part, self._allowed, self._download_limits, headers)
            files = await asyncio.to_thread(self._open, part, url, workflow_name)
            if not await asyncio.to_thread(place, part, final):
                self.release(files)
                raise exists
        finally:
            part.unlink(missing_ok=True)
        return files

    def _open(self, path: Path, url: str, workflow_name: str) -> WorkflowFiles:
        directory = path
        try:
            if not path.is_dir():
                self._unpacked.mkdir(parents=True, exist_ok=True, mode=0o700)
                directory = unpack(path, self._unpacked / secrets.token_hex(16), limits=DEFAULT_LIMITS)
            return _read(directory, url, workflow_name)
        except BaseException as error:
            if directory != path:
                shutil.rmtree(directory, ignore_errors=True)
            if isinstance(error, ArchiveError):
                raise InvalidWorkflow(
                    error.message.replace(path.name, file_name(url) if is_url(url) else url)
                ) from None
            raise


def _read(directory: Path, url: str, workflow_name: str) -> WorkflowFiles:
    """Manifest and specification of an unpacked workflow. Raises :class:`InvalidWorkflow`."""
    try:
        manifest = json.loads((directory / WORKFLOW_MANIFEST_PATH).read_bytes())
    except FileNotFoundError:
        raise InvalidWorkflow(f"{url} is no workflow archive: it has no {WORKFLOW_MANIFEST_PATH}") from None
    except ValueError as error:
        raise InvalidWorkflow(f"{WORKFLOW_MANIFEST_PATH} of {url} is not valid JSON: {error}") from None
    workflow = manifest.get("workflow") if isinstance(manifest, dict) else None
    if not isinstance(workflow, dict):
        raise InvalidWorkflow("Missing Workflow entry in manifest file.")
    name = workflow_name or workflow.get("workflowName")
    if not isinstance(name, str) or not name:
        raise InvalidWorkflow("Workflow name is not defined.")
    handler = str(workflow.get("handler") or "")
    try:
        spec_name = check_member_name(str(workflow.get("specFile") or ""))
        handler = check_member_name(handler) if handler else ""
        spec = parse_config((directory / spec_name).read_bytes(), spec_name)
    except (ArchiveError, InvalidInput) as error:
        raise InvalidWorkflow(f"Workflow {name}: {error.message}") from None
    except OSError as error:
        raise InvalidWorkflow(f"Workflow {name}: cannot read its specFile: {error.strerror or error}") from None
    return WorkflowFiles(name, url, str(directory), spec, handler)
