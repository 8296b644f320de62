"""The OpenAPI documents that TorchServe serves: the same paths, parameters, answers and order, described in our words.

Clients are generated from these documents and tests compare them, so even what TorchServe's servers never answer
(210, ``metrics`` of a model, a timeout of 2 s by default) is in them. They are sent where ``server.http_style`` is
``torchserve``; mlserve's own documents are in :mod:`mlserve.protocols.openapi`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlserve.protocols.torchserve_texts import TORCHSERVE_VERSION

_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

Schema = dict[str, Any]
Parameter = tuple[str, str, str, str]  # name, type, default ("!" = required, "" = none), description

_REGISTER: tuple[Parameter, ...] = (
    ("url", "string", "!", "Archive: a name in the model store, or an allowed URL."),
    ("model_name", "string", "", "Name of the model, in place of the manifest's."),
    ("handler", "string", "", "Handler, in place of the manifest's."),
    ("runtime", "string", "", "Runtime, in place of the manifest's."),
    ("batch_size", "integer", "1", "Most requests in one batch, default: 1."),
    ("max_batch_delay", "integer", "100", "Longest wait for a batch to fill in milliseconds, default: 100."),
    ("response_timeout", "integer", "2", "Longest time for one batch in seconds, default: 120."),
    ("startup_timeout", "integer", "120", "Longest time for a worker to load in seconds, default: 120."),
    ("initial_workers", "integer", "0", "Workers to start, default: 0."),
    ("synchronous", "boolean", "false", "Whether to answer only when the workers are ready."),
    ("s3_sse_kms", "boolean", "false", "Whether S3 keeps the archive encrypted by KMS, default: false."),
)
_WAIT: tuple[Parameter, ...] = (
    ("synchronous", "boolean", "false", "Whether to answer only when it is done, default: false."),
    ("timeout", "integer", "-1", "Seconds to wait for requests that a worker still has; -1: no limit."),
)
_SCALE: tuple[Parameter, ...] = (
    ("min_worker", "integer", "1", "Workers to grow to."),
    ("max_worker", "integer", "1", "Workers to shrink to."),
    ("number_gpu", "integer", "0", "Workers on GPUs; without effect."),
    *_WAIT,
)
_PAGE: tuple[Parameter, ...] = (
    ("limit", "integer", "100", "Most models in one answer, 1 to 100, default: 100."),
    ("next_page_token", "string", "", "The token of the answer before."),
)
_NO_VERSION = "Model not found or Model version not found"
_BAD = "Bad request"


def _typed(kind: str, description: str = "", **more: Any) -> Schema:
    return {"type": kind, **more, **({"description": description} if description else {})}


def _object(properties: Mapping[str, Schema], *optional: str) -> Schema:
    """All ``properties`` are required but the ``optional`` ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": dict(properties)}


_ERROR = _object(
    {
        "code": _typed("integer", "Error code."),
        "type": _typed("string", "Error type."),
        "message": _typed("string", "Error message."),
    }
)
_STATUS = _object({"status": _typed("string", "What was done.")})
_HEALTH = _object({"status": _typed("string", "Health of the server.")})
_DOCUMENT = _object({"openapi": _typed("string"), "info": _typed("object"), "paths": _typed("object")})
_BINARY = {"type": "string", "format": "binary"}
_METRICS = _object(
    {
        "# HELP": _typed("string", "What the metric means."),
        "# TYPE": _typed("string", "Kind of the metric."),
        "metric": _typed("string", "A sample."),
    }
)
_LISTED = _object({"modelName": _typed("string", "Name of the model."), "modelUrl": _typed("string", "Its URL.")})
_LIST = _object(
    {
        "nextPageToken": _typed("string", "Give it as next_page_token to get the next page."),
        "models": {"type": "array", "items": _LISTED, "description": "Registered models."},
    },
    "nextPageToken",
)
_WORKER = _object(
    {
        "id": _typed("string", "Worker id"),
        "startTime": _typed("string", "When it was started"),
        "gpu": _typed("boolean", "Whether it has a GPU"),
        "status": {"type": "string", "description": "Its state", "enum": ["READY", "LOADING", "UNLOADING"]},
    },
    "gpu",
)
_MODEL = _object(
    {
        "modelName": _typed("string", "Name of the model."),
        "modelVersion": _typed("string", "Its version."),
        "modelUrl": _typed("string", "What it was registered from."),
        "minWorkers": _typed("integer", "Workers to keep."),
        "maxWorkers": _typed("integer", "Workers to grow to."),
        "batchSize": _typed("integer", "Most requests in one batch."),
        "maxBatchDelay": _typed("integer", "Longest wait for a batch in ms."),
        "status": _typed("string", "Health of the model"),
        "workers": {"type": "array", "items": _WORKER, "description": "Its workers."},
        "metrics": _object(
            {
                "rejectedRequests": _typed("integer", "Requests refused in the last 10 minutes."),
                "waitingQueueSize": _typed("integer", "Requests that wait."),
                "requests": _typed("integer", "Requests of the last 10 minutes."),
            }
        ),
        "jobQueueStatus": _object(
            {
                "remainingCapacity": _typed("integer", "Requests that can still be queued."),
                "pendingRequests": _typed("integer", "Requests that wait."),
            }
        ),
    },
    "batchSize",
    "maxBatchDelay",
)


def _parameters(place: str, parameters: Sequence[Parameter]) -> list[Schema]:
    result = []
    for name, kind, default, description in parameters:
        schema: Schema = {"type": kind}
        if default not in ("", "!"):
            schema["default"] = default  # texts, on the wire, whatever the type
        if name == "runtime":
            schema["enum"] = ["PYTHON", "PYTHON3", "LSP"]
        row = {"in": place, "name": name, "description": description, "required": default == "!", "schema": schema}
        result.append(row)
    return result


def _answers(first: Mapping[int, tuple[str, str, Schema]], failures: Mapping[int, str]) -> Schema:
    """``first`` maps a status to (description, media type, schema); ``failures`` to a description."""
    failed = {500: "Internal Server Error", **failures}
    rows = {**first, **{status: (text, _JSON, _ERROR) for status, text in failed.items()}}
    return {
        str(status): {"description": text, "content": {media: {"schema": schema}}}
        for status, (text, media, schema) in sorted(rows.items())
    }


def _operation(description: str, identifier: str, parameters: Sequence[Schema], answers: Schema) -> Schema:
    return {
        "description": description,
        "operationId": identifier,
        "parameters": list(parameters),
        "responses": answers,
    }


def _path(what: str, versioned: bool) -> list[Schema]:
    """The path parameters of a model, or of one version; ``what`` follows their names."""
    names = ("model_name", "model_version") if versioned else ("model_name",)
    texts = {"model_name": f"Name of model{what}.", "model_version": f"Version of model{what}."}
    return _parameters("path", [(name, "string", "!", texts[name]) for name in names])


def _done(text: str) -> dict[int, tuple[str, str, Schema]]:
    return {200: (text, _JSON, _STATUS)}


_ACCEPTED = {202: ("Accepted", _JSON, _STATUS)}
_PARTIAL = {210: ("Partial Success", _JSON, _STATUS)}


def _model_paths() -> Schema:
    paths: Schema = {}
    for versioned in (False, True):
        which, prefix = ("one version", "version_") if versioned else ("the default version", "")
        paths["/models/{model_name}" + ("/{model_version}" if versioned else "")] = {
            "get": _operation(
                f"Describes {which} of a model." + (' With "all" for a version, every one.' if versioned else ""),
                f"{prefix}describeModel",
                _path(" to describe", versioned),
                _answers({200: ("OK", _JSON, _MODEL)}, {404: _NO_VERSION}),
            ),
            "put": _operation(
                f"Changes the number of workers of {which} of a model, by default without waiting for them.",
                f"{prefix}setAutoScale",
                [*_path(" to scale", versioned), *_parameters("query", _SCALE)],
                _answers({**_done("Model workers updated"), **_ACCEPTED, **_PARTIAL}, {400: _BAD, 404: _NO_VERSION}),
            ),
            "delete": _operation(
                f"Removes {which} of a model; the default version only where it is the last one.",
                f"{prefix}unregisterModel",
                [*_path(" to unregister", versioned), *_parameters("query", _WAIT)],
                _answers(
                    {**_done("Model unregistered"), **_ACCEPTED}, {404: _NO_VERSION, 408: "Request Timeout Error"}
                ),
            ),
        }
    paths["/models/{model_name}/{model_version}/set-default"] = {
        "put": _operation(
            "Sends requests that name no version to this one.",
            "setDefault",
            _path(" to be the default", True),
            _answers(_done("Default version successfully updated for model"), {404: _NO_VERSION}),
        )
    }
    return paths


def _api_description(identifier: str) -> Schema:
    answers = _answers({200: ("A openapi 3.0.1 descriptor", _JSON, _DOCUMENT)}, {})
    return _operation("Get openapi description.", identifier, [], answers)


def _own_paths() -> tuple[Schema, Schema]:
    """What every API has: its description, first and last in the document, the old route for it and the metrics."""
    last = {"/api-description": {"get": {**_api_description("api-description"), "deprecated": True}}}
    return {"/": {"options": _api_description("apiDescription")}}, {**last, **_metrics_paths()}


def _metrics_paths() -> Schema:
    parameters = _parameters("query", [("name[]", "string", "", "Names of metrics to show")])
    answers = _answers({200: ("TorchServe application metrics", _PROMETHEUS, _METRICS)}, {})
    return {"/metrics": {"get": _operation("Metrics in Prometheus' format.", "metrics", parameters, answers)}}


def _prediction(versioned: bool) -> Schema:
    failures = {404: "Model not found or Model Version not found", 503: "No worker is available to serve request"}
    operation = _operation(
        "A prediction of " + ("one version of a model." if versioned else "a model's default version."),
        "version_predictions" if versioned else "predictions",
        _path("", versioned),
        _answers({200: ("What the model's handler answers.", "*/*", _BINARY)}, failures),
    )
    body = {"description": "What the model's handler takes.", "content": {"*/*": {"schema": _BINARY}}, "required": True}
    answers = operation.pop("responses")
    return {"post": {**operation, "requestBody": body, "responses": answers}}


def inference_paths() -> Schema:
    """The paths of the inference API alone."""
    ping = _operation("Health of the server.", "ping", [], _answers({200: ("TorchServe status", _JSON, _HEALTH)}, {}))
    return {
        "/ping": {"get": ping},
        "/v1/models/{model_name}:predict": _prediction(False),
        "/v2/models/{model_name}/infer": _prediction(False),
        "/predictions/{model_name}": _prediction(False),
        "/predictions/{model_name}/{model_version}": _prediction(True),
    }


def management_paths() -> Schema:
    """The paths of the management API alone."""
    registered = {**_done("Model registered"), **_ACCEPTED, **_PARTIAL}
    return {
        "/models": {
            "get": _operation(
                "Lists models.",
                "listModels",
                _parameters("query", _PAGE),
                _answers({200: ("OK", _JSON, _LIST)}, {}),
            ),
            "post": _operation(
                "Registers a model.",
                "registerModel",
                _parameters("query", _REGISTER),
                _answers(registered, {400: _BAD, 404: "Model not found", 409: "Model already registered"}),
            ),
        },
        **_model_paths(),
    }


def inference_api() -> Schema:
    """The document of the inference port."""
    first, last = _own_paths()
    return _server_document({**first, **inference_paths(), **last})


def management_api() -> Schema:
    """The document of the management port."""
    first, last = _own_paths()
    return _server_document({**first, **management_paths(), **last})


def single_listener_api() -> Schema:
    """The document where one port has every API."""
    first, last = _own_paths()
    legacy = "/api-description"  # TorchServe's order: behind the inference paths
    paths = {**first, **inference_paths(), legacy: last[legacy], **management_paths(), **last}
    return _server_document(paths)


def metrics_api() -> Schema:
    """The document of the metrics port."""
    return _server_document(_metrics_paths())


def predict_api(name: str) -> Schema:
    """``OPTIONS /predictions/NAME``. The path without an s is on the wire."""
    failure = {"500": {"description": "Internal Server Error", "content": {_JSON: {"schema": _ERROR}}}}
    operation = _operation(f"A prediction of model: {name}.", name, [], {"200": {"description": "OK"}, **failure})
    paths = (f"/prediction/{name}", "/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer")
    return _document(
        {"title": f"RESTful API for: {name}", "version": "1.0.0"}, {path: {"post": operation} for path in paths}
    )


def model_management_api(name: str) -> Schema:
    """``OPTIONS /models/NAME``."""
    info = {"title": f"RESTful Management API for: {name}", "version": TORCHSERVE_VERSION}
    return _document(info, _model_paths())


def _server_document(paths: Schema) -> Schema:
    description = "Serves models over HTTP and gRPC"
    info = {"title": "TorchServe APIs", "description": description, "version": TORCHSERVE_VERSION}
    return _document(info, paths)


def _document(info: Schema, paths: Schema) -> Schema:
    return {"openapi": "3.0.1", "info": info, "paths": paths}
