"""What the management API does, for HTTP and gRPC alike: parameters -> service -> a status and a JSON value.

    actions = ManagementActions(service, settings)
    status, value = await actions.register({"url": "m.mar", "initial_workers": 1, "synchronous": False})
    status, value = await actions.scale("m", "1.0", {"min_worker": 2})
    status, value = await actions.describe("m", "all")           # also unregister, set_default, list_models, readiness

``parameters`` holds what the client gave, as text or as values of the right type; what it did not give is not in it.
``status`` is 200, or 202 (206) where workers are still on their way. ``value`` is ``{"status": text}`` after a change,
else the JSON of the REST answer; :func:`message` is the form that gRPC sends. Failures are raised as
:class:`ServeError`, with TorchServe's texts where ``server.http_style`` is ``torchserve``.

A change that was accepted is carried out to its end, whether or not the client waits for it: a client that gives up
must not leave a model half registered.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mlserve.core.lifecycle import WorkerState
from mlserve.core.model import ModelKey
from mlserve.errors import ErrorKind, MethodNotAllowed, ServeError, WorkerStartError
from mlserve.protocols import management as codec
from mlserve.protocols.describing import customized_json, describe_json, gpu_usage, list_json
from mlserve.protocols.errors import json_body

if TYPE_CHECKING:
    from mlserve.core.service import InferenceService
    from mlserve.settings import Settings

log = logging.getLogger(__name__)

PROCESSING = "Processing worker updates..."

Parameters = Mapping[str, Any]
Result = tuple[int, Any]
T = TypeVar("T")


class ManagementActions:
    """Every action of the management API. Reads ``settings.server.http_style`` and ``settings.models``."""

    def __init__(self, service: InferenceService, settings: Settings) -> None:
        self._service = service
        self._model_api = settings.models.model_api
        self._unregister_timeout = settings.models.unregister_timeout
        self._lenient = settings.server.http_style == "torchserve"
        self._changes: set[asyncio.Task[Any]] = set()

    async def list_models(self, parameters: Parameters) -> Result:
        """A page of names and URLs."""
        return 200, list_json(self._service.list_models(), codec.parse_list(parameters))

    async def describe(self, name: str, version: str = "", parameters: Parameters | None = None) -> Result:
        """One version, or with ``version`` "all" every one; ``customized=true`` asks the handler as well."""
        models = self._service.describe(name, version)
        customized = None
        if str((parameters or {}).get("customized", "")).lower() == "true" and version != "all":
            said = await self._service.describe_customized(name, version)
            customized = customized_json(said.body)
        gpus = {worker.gpu_id for model in models for worker in model.workers if worker.gpu_id is not None}
        usage = await asyncio.to_thread(lambda: {gpu: gpu_usage(gpu) for gpu in gpus}) if gpus else {}
        return 200, [describe_json(model, usage, customized, self._service.spares()) for model in models]

    async def readiness(self, name: str) -> Result:
        """Whether the default version is ready. A model that wants no workers is healthy, but it answers nobody."""
        workers = self._service.find(name).pool.live
        return 200, {"name": name, "ready": workers > 0 and self._service.health().models.get(name, False)}

    async def register(self, parameters: Parameters) -> Result:
        """Load a version and start its workers."""
        self._check_model_api()
        _warn_unknown(parameters, codec.REGISTER_PARAMETERS)
        call = codec.parse_register(parameters, lenient=self._lenient)
        change = self._service.register(
            call.url, call.overrides, initial_workers=call.initial_workers, synchronous=call.synchronous
        )
        try:
            result = await self._to_the_end(change, f"registering {call.url}")
        except WorkerStartError as error:
            raise self._start_failure(error, error.failed) from error
        return (200, status_json(registered_text(result.key, result.workers))) if result.done else _PROCESSING

    async def scale(self, name: str, version: str, parameters: Parameters) -> Result:
        """Change the number of workers."""
        _warn_unknown(parameters, codec.SCALE_PARAMETERS)
        call = codec.parse_scale(parameters, lenient=self._lenient)
        version = version or call.version
        change = self._service.scale(
            name, version, min_workers=call.min_workers, max_workers=call.max_workers, synchronous=call.synchronous
        )
        try:
            result = await self._to_the_end(change, f"scaling {name}")
        except WorkerStartError as error:
            text = f"Failed to start workers for model {name} version: {version or 'null'}"
            raise self._start_failure(error, text) from error
        if not result.done:
            return _PROCESSING
        if not self._lenient:
            return 200, status_json(scaled_text(name, version, result.workers))
        if self._service.describe(name, version)[0].ready_workers < result.workers:
            return 206, status_json("Workers scaling in progress...")  # some are started again, after a failure
        return 200, status_json(scaled_text(name, version, call.min_workers))  # TorchServe says what was asked for

    async def unregister(self, name: str, version: str = "") -> Result:
        """Answer what a version has accepted, then remove it."""
        self._check_model_api()
        if not self._unregister_timeout:
            await self._refuse_to_wait(name, version)
        await self._to_the_end(self._service.unregister(name, version), f"unregistering {name}")
        return 200, status_json(f'Model "{name}" unregistered')

    async def set_default(self, name: str, version: str) -> Result:
        """Send requests without a version to this one."""
        self._service.set_default(name, version)
        return 200, status_json(f'Default version successfully updated for model "{name}" to "{version}"')

    async def _to_the_end(self, change: Coroutine[Any, Any, T], what: str) -> T:
        """Wait for a change. If the request is cancelled meanwhile, the change goes on and its failure is logged."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda task: _log_failure(task, what))
            raise

    async def _refuse_to_wait(self, name: str, version: str) -> None:
        """With ``models.unregister_timeout`` 0 workers end, and the version without them can be removed next time."""
        models = self._service.describe(name, version)
        in_use = models[0].is_default and len(self._service.describe(name, "all")) > 1  # for the service to refuse
        ended = (WorkerState.DRAINING.value, WorkerState.STOPPED.value)  # by the try before this one
        if any(worker.state not in ended for worker in models[0].workers) and not in_use:
            await self._to_the_end(
                self._service.scale(name, version, min_workers=0, max_workers=0), f"ending the workers of {name}"
            )
            raise ServeError(f"Timed out while cleaning resources: {name}", kind=ErrorKind.TIMEOUT, status=408)

    def _check_model_api(self) -> None:
        if not self._model_api:
            raise MethodNotAllowed(
                ""
                if self._lenient
                else "Registering and unregistering models is switched off; models.model_api = true allows it"
            )

    def _start_failure(self, error: WorkerStartError, text: str) -> ServeError:
        """TorchServe says what failed and not why; memory has a status of its own there."""
        if not self._lenient:
            return error
        status = 507 if error.killed or error.kind is ErrorKind.OUT_OF_MEMORY else None
        return ServeError(text, kind=ErrorKind.INTERNAL, status=status, detail=error.detail)


def status_json(text: str) -> dict[str, Any]:
    """The answer of everything that changes something."""
    return {"status": text}


_PROCESSING: Result = (202, status_json(PROCESSING))


def message(value: Any) -> str:
    """The text of a gRPC answer: the bare status, or the REST answer's JSON without its last newline."""
    if isinstance(value, dict) and value.keys() == {"status"}:
        return str(value["status"])
    return json_body(value).decode().removesuffix("\n")


def registered_text(key: ModelKey, workers: int) -> str:
    """What a finished registration says."""
    text = f'Model "{key.name}" Version: {key.version} registered with {workers} initial workers'
    return text if workers else f"{text}. Use scale workers API to add workers for the model."


def scaled_text(name: str, version: str, workers: int) -> str:
    """What finished scaling says; ``version`` is empty where the request named none."""
    return f"Workers scaled to {workers} for model: {name}" + (f", version: {version}" if version else "")


def _log_failure(task: asyncio.Task[Any], what: str) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed, with nobody waiting for it: %s", what, error)


def _warn_unknown(parameters: Parameters, known: Sequence[str]) -> None:
    """TorchServe ignores what it does not know, so an error would break scripts; a misspelling must still show."""
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            log.warning("parameter %.80r ignored%s", name, f"; did you mean {near[0]!r}?" if near else "")
