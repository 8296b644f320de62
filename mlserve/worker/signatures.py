"""What a handler says of its model's inputs and outputs, as far as ``describe`` can pass it on.

The attribute may be a user's own that only happens to be called so: whatever is in it, the model loads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger("mlserve.worker")
ATTRIBUTE = "model_signature"
MAX_SIZE = 256 << 10  # bytes of JSON: it is in every answer of ``describe``
MAX_DEPTH = 32


def signature_of(handler: object) -> dict[str, Any]:
    """The handler's ``model_signature`` if it is a mapping that JSON can hold as it is, else ``{}``."""
    try:
        value = getattr(handler, ATTRIBUTE, None)
        return _strict(dict(value)) if isinstance(value, Mapping) else {}
    except Exception as error:  # a property or a mapping of the user's may raise anything
        log.warning(
            "%s.%s is left out of the model's description, where it stands for inputs and outputs: %s",
            type(handler).__name__,
            ATTRIBUTE,
            str(error) or type(error).__name__,
        )
        return {}


def _strict(value: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()  # lone surrogates are no UTF-8
    if len(text) >= MAX_SIZE:
        raise ValueError(f"{len(text)} bytes of JSON; less than {MAX_SIZE} are allowed")
    _check(value, 0)
    plain: dict[str, Any] = json.loads(text)
    return plain


def _check(value: object, depth: int) -> None:
    """What ``json.dumps`` lets pass: keys that it would turn into text, and integers that MessagePack cannot hold."""
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
            _check(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("an integer of more than 64 bits")
