"""OpenAPI 3 documents of the three APIs and of a single model, built from small parts at request time."""

from __future__ import annotations

from typing import Any

_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
_ERROR = {
    "type": "object",
    "required": ["code", "type", "message"],
    "properties": {"code": {"type": "integer"}, "type": {"type": "string"}, "message": {"type": "string"}},
}
_LIST = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "nextPageToken": {"type": "string", "description": "Give it as next_page_token to get the next page."},
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"modelName": {"type": "string"}, "modelUrl": {"type": "string"}},
            },
        },
    },
}
_READINESS = {"type": "object", "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}}}
_WORKER_TYPES = {
    "id": "string", "startTime": "string", "status": "string", "memoryUsage": "integer", "pid": "integer",
    "gpu": "boolean", "gpuUsage": "string", "state": "string", "device": "string", "restarts": "integer",
    "lastExit": "string", "traceback": "string", "logTail": "array",
}  # fmt: skip
_MODEL_TYPES = {
    "modelName": "string", "modelVersion": "string", "modelUrl": "string", "runtime": "string",
    "minWorkers": "integer", "maxWorkers": "integer", "batchSize": "integer", "maxBatchDelay": "number",
    "responseTimeout": "number", "startupTimeout": "number", "maxRetryTimeoutInSec": "number",
    "clientTimeoutInMills": "integer", "parallelType": "string", "parallelLevel": "integer", "deviceType": "string",
    "deviceIds": "array", "continuousBatching": "boolean", "useJobTicket": "boolean", "useVenv": "boolean",
    "stateful": "boolean", "sequenceMaxIdleMSec": "integer", "sequenceTimeoutMSec": "integer",
    "maxNumSequence": "integer", "maxSequenceJobQueueSize": "integer", "loadedAtStartup": "boolean",
    "workers": "array", "jobQueueStatus": "object", "state": "string", "defaultVersion": "boolean",
    "batchPolicy": "string", "latencyTarget": "number", "lastError": "string", "provenance": "object",
    "jobQueueSize": "integer", "retryOnWorkerDeath": "integer", "isolateErrors": "boolean",
    "threadsPerWorker": "integer", "preprocessThreads": "integer", "handlerThreads": "integer",
    "asyncCommunication": "boolean",
}  # fmt: skip

_REGISTER = (
    ("url", "string", True, "File or directory in the model store, or an allowed http(s) URL."),
    ("model_name", "string", False, "Name to serve it under; default: the archive's."),
    ("handler", "string", False, "Handler; default: the archive's."),
    ("runtime", "string", False, "python or python3."),
    ("batch_size", "integer", False, "Most requests in one batch; default 1."),
    ("max_batch_delay", "number", False, "Longest wait for a batch to fill, in milliseconds; default 100."),
    ("initial_workers", "integer", False, "Workers to start; default 0."),
    ("synchronous", "boolean", False, "Answer when the workers are ready; default true."),
    ("response_timeout", "number", False, "Longest time for one batch, in seconds; default 120."),
    ("startup_timeout", "number", False, "Longest time for a worker to load, in seconds; default 120."),
)
_SCALE = (
    ("min_worker", "integer", False, "Grow to this many workers; default 1."),
    ("max_worker", "integer", False, "Shrink to this many workers; default min_worker."),
    ("synchronous", "boolean", False, "Answer when the workers are ready; default false."),
    ("timeout", "integer", False, "Accepted, without effect."),
)
_LIST_PARAMETERS = (
    ("limit", "integer", False, "Models per page, 1 to 100; default 100."),
    ("next_page_token", "string", False, "Token of the page before."),
)


def _schema(types: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            name: {"type": kind, "items": {}} if kind == "array" else {"type": kind} for name, kind in types.items()
        },
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _operation(
    identifier: str,
    summary: str,
    answers: dict[int, dict[str, Any] | str],
    query: tuple[tuple[str, str, bool, str], ...] = (),
    path: tuple[str, ...] = (),
) -> dict[str, Any]:
    """``answers`` maps a status to the schema of its body, or to what went wrong."""
    parameters = [{"in": "path", "name": name, "required": True, "schema": {"type": "string"}} for name in path]
    parameters += [
        {"in": "query", "name": name, "required": required, "description": text, "schema": {"type": kind}}
        for name, kind, required, text in query
    ]
    responses = {
        str(status): {"description": answer, "content": _content(_ERROR)}
        if isinstance(answer, str)
        else {"description": "Done" if status == 200 else "Accepted", "content": _content(answer)}
        for status, answer in answers.items()
    }
    return {"operationId": identifier, "summary": summary, "parameters": parameters, "responses": responses}


def management_api(server_version: str) -> dict[str, Any]:
    """The whole management API."""
    missing = "No such model or version"
    worker = _schema(_WORKER_TYPES)
    model = _schema(_MODEL_TYPES)
    model["properties"]["workers"] = {"type": "array", "items": worker}
    models: dict[int, dict[str, Any] | str] = {200: {"type": "array", "items": model}, 404: missing}
    change: dict[int, dict[str, Any] | str] = {200: _STATUS, 202: _STATUS, 400: "Bad parameter", 404: missing}
    paths: dict[str, Any] = {
        "/models": {
            "get": _operation("listModels", "List models by name.", {200: _LIST}, _LIST_PARAMETERS),
            "post": _operation(
                "registerModel",
                "Register a model; parameters may also be a JSON body.",
                {**change, 405: "The model API is off", 409: "That version is registered", 500: "No worker started"},
                _REGISTER,
            ),
        },
    }
    for suffix, names in (("", ("model_name",)), ("/{model_version}", ("model_name", "model_version"))):
        kind = "Version" if suffix else "Model"
        paths[f"/models/{{model_name}}{suffix}"] = {
            "get": _operation(f"describe{kind}", "Describe; the version may be `all`.", models, (), names),
            "put": _operation(f"scale{kind}", "Change the number of workers.", change, _SCALE, names),
            "delete": _operation(
                f"unregister{kind}",
                "Answer what was accepted, then remove.",
                {200: _STATUS, 403: "It is the default version of several", 404: missing, 405: "The model API is off"},
                (),
                names,
            ),
        }
    paths["/models/{model_name}/{model_version}/set-default"] = {
        "put": _operation(
            "setDefault",
            "Send requests without a version to this one.",
            {200: _STATUS, 404: missing},
            (),
            ("model_name", "model_version"),
        )
    }
    paths["/v1/models/{model_name}"] = {
        "get": _operation(
            "modelReady", "Whether a worker is ready.", {200: _READINESS, 404: missing}, (), ("model_name",)
        )
    }
    paths["/api-description"] = {"get": _operation("apiDescription", "This document.", {200: {"type": "object"}})}
    return _document("mlserve management API", server_version, paths)


def inference_api(server_version: str) -> dict[str, Any]:
    """The whole inference API."""
    paths: dict[str, Any] = {
        f"/{verb}/{{model_name}}": {"post": _inference(identifier, summary, ("model_name",))}
        for verb, identifier, summary in (
            ("predictions", "predictions", "A prediction."),
            ("explanations", "explanations", "An explanation of a prediction."),
        )
    }
    paths["/invocations"] = {"post": _inference("invocations", "A prediction of the model `model_name`.", ())}
    paths["/ping"] = {"get": _operation("ping", "Whether the server is healthy.", {200: _STATUS, 500: "It is not"})}
    paths["/api-description"] = {"get": _operation("apiDescription", "This document.", {200: {"type": "object"}})}
    return _document("TorchServe APIs", server_version, paths)


def metrics_api(server_version: str) -> dict[str, Any]:
    """The metrics API."""
    names = (("name[]", "string", False, "Only the metrics of this name; may be repeated."),)
    scrape = _operation("metrics", "The metrics, as Prometheus reads them.", {}, names)
    scrape["responses"]["200"] = {"description": "Done", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return _document("mlserve metrics API", server_version, {"/metrics": {"get": scrape}})


def model_api(name: str, server_version: str) -> dict[str, Any]:
    """The inference API of one model."""
    operation = _inference("predict", f"A prediction of model {name}.", ())
    return _document(f"RESTful API for: {name}", server_version, {f"/predictions/{name}": {"post": operation}})


def _inference(identifier: str, summary: str, names: tuple[str, ...]) -> dict[str, Any]:
    """An operation that takes and answers what the handler likes."""
    operation = _operation(
        identifier, summary, {404: "No such model", 503: "No worker, or its queue is full"}, (), names
    )
    operation["requestBody"] = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    operation["responses"]["200"] = {
        "description": "What the handler answered",
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    }
    return operation


def _document(title: str, server_version: str, paths: dict[str, Any]) -> dict[str, Any]:
    return {"openapi": "3.0.1", "info": {"title": title, "version": server_version}, "paths": paths}
