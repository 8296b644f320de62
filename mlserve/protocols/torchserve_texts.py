"""What TorchServe 0.12 says over HTTP, word for word, and the headers it says it with.

Clients and test suites match on these texts, so they are facts and not ours to improve. They are used where the setting
``server.http_style`` is ``torchserve``; where both styles agree (the error types, ``Prediction failed``) the shared
table is :mod:`mlserve.protocols.errors`.
"""

from __future__ import annotations

from mlserve.errors import ErrorKind

TORCHSERVE_VERSION = "0.12.0"

INVALID_HTTP = "Invalid HTTP message."
MODEL_NAME_REQUIRED = "Parameter model_name is required."
HTTPS_ONLY = "This TorchServe instance only accepts HTTPS requests"
NO_VERSIONING = "Model versioning is not yet supported."
INVALID_TOKEN = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
PREDICTION_FAILED = "Prediction failed"
OUT_OF_RESOURCES = "Out of resources"
WORKER_DIED = "Worker died."

# Every answer carries these, under the spelling that is on the wire; neither a date nor a server header is among them.
NO_CACHE = (
    ("Pragma", "no-cache"),
    ("Cache-Control", "no-cache; no-store, must-revalidate, private"),
    ("Expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
)

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
