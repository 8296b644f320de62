"""What TorchServe 0.12 says over HTTP, word for word, and the headers it says it with.

Clients and test suites match on these texts, so they are facts and not ours to improve. They are used where the setting
``server.http_style`` is ``torchserve``; where both styles agree (the error types, ``Prediction failed``) the shared
table is :mod:`mlserve.protocols.errors`.
"""

from __future__ import annotations

from http import HTTPStatus

from mlserve.errors import ErrorKind

TORCHSERVE_VERSION = "0.12.0"

INVALID_HTTP = "Invalid HTTP message."
MODEL_NAME_REQUIRED = "Parameter model_name is required."
HTTPS_ONLY = "This TorchServe instance only accepts HTTPS requests"
NO_VERSIONING = "Model versioning is not yet supported."
PREDICTION_FAILED = "Prediction failed"
OUT_OF_RESOURCES = "Out of resources"
WORKER_DIED = "Worker died."

# Every answer carries these, under the spelling that is on the wire; neither a date nor a server header is among them.
NO_CACHE = (
    ("Pragma", "no-cache"),
    ("Cache-Control", "no-cache; no-store, must-revalidate, private"),
    ("Expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
)

# Reason phrases that are not those of Python's table, which changed with 3.13, and statuses that have none.
_PHRASES = {status.value: status.phrase for status in HTTPStatus if status not in (208, 226, 418, 451, 508)}
_PHRASES.update({413: "Request Entity Too Large", 414: "Request-URI Too Long", 425: "Unordered Collection"})
_PHRASES[416] = "Requested Range Not Satisfiable"
_PHRASES[422] = "Unprocessable Entity"
_CLASSES = {1: "Informational", 2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}

# The misspelt key is on the wire.
OPEN_INFERENCE_SERVER = {"name": "Torchserve", "version": TORCHSERVE_VERSION, "extenstion": ["kserve", "kubeflow"]}

FAILURES = {
    ErrorKind.HANDLER_FAILED: PREDICTION_FAILED,
    ErrorKind.OUT_OF_MEMORY: OUT_OF_RESOURCES,
    ErrorKind.WORKER_DIED: WORKER_DIED,
}
"""What a client is told of a failure behind the queue, unless the handler chose the words itself."""

_NO_WORKER = (
    "{model} has no worker to serve inference request. Please use scale workers API to add workers. "
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


def no_worker_text(name: str, version: str = "") -> str:
    """Of a model without workers, or whose queue is full. ``version`` is the one that the client named."""
    model = f'Model "{name}" Version {version}"' if version else f'Model "{name}"'  # the stray quote is on the wire
    return _NO_WORKER.format(model=model)


def reason_phrase(status: int) -> str:
    """What follows the status of an answer that the server worded itself; answers of handlers have none."""
    phrase = _PHRASES.get(status)
    return phrase if phrase is not None else f"{_CLASSES.get(status // 100, 'Unknown Status')} ({status})"
