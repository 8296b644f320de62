"""What every application here does with its job: load the handler that the environment names, and encode answers.

Stands beside the applications and is found by ``PYTHONPATH``; imports nothing but the standard library.
"""

import base64
import importlib.util
import json
import os
from typing import Any

BATCH = int(os.environ["BENCH_BATCH"])
DELAY_MS = int(os.environ["BENCH_DELAY_MS"])
WORKERS = int(os.environ["BENCH_WORKERS"])
PORT = int(os.environ["BENCH_PORT"])


def load() -> Any:
    """The handler, loaded: its ``run`` takes a list of bodies (bytes) and returns a list of answers."""
    spec = importlib.util.spec_from_file_location("handler", os.environ["BENCH_HANDLER"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.Handler()
    handler.load(os.environ["BENCH_FOLDER"])
    return handler


def unwrap(fields: dict[str, str]) -> bytes:
    """The body in a JSON object: its ``text`` as it is, or ``base64``."""
    text = fields.get("text")
    return base64.b64decode(fields["base64"]) if text is None else text.encode()


def wrap(answer: Any) -> dict[str, str]:
    """An answer in such an object."""
    if isinstance(answer, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(answer).decode()}
    return {"text": answer if isinstance(answer, str) else json.dumps(answer)}


def encode(answer: Any) -> bytes:
    """An answer as bytes: text and bytes as they are, anything else as JSON."""
    if isinstance(answer, str):
        return answer.encode()
    return bytes(answer) if isinstance(answer, (bytes, bytearray, memoryview)) else json.dumps(answer).encode()
