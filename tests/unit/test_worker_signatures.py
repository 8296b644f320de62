"""An attribute of a user's handler that is called ``model_signature`` must not keep the model from loading."""

import logging
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from mlserve.worker.signatures import MAX_SIZE, signature_of

CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE
DEEP: dict[str, Any] = {}
for _ in range(200):
    DEEP = {"in": DEEP}


@pytest.mark.parametrize(
    "value",
    [
        {"a": object()},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {1: "a"},
        {"a": [{None: 1}]},
        {"a": float("nan")},
        {"a": 2**64},
        {"a": "\ud800"},
        {"a": "x" * MAX_SIZE},
        CYCLE,
        DEEP,
    ],
)
def test_signature_that_cannot_be_sent_stops_its_model(value: dict[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert signature_of(SimpleNamespace(model_signature=value)) == {}
    (record,) = caplog.records
    assert "SimpleNamespace.model_signature" in record.message


def test_property_that_raises_stops_its_model(caplog: pytest.LogCaptureFixture) -> None:
    class Mine:
        @property
        def model_signature(self) -> dict[str, Any]:
            raise RuntimeError("not yet")

    assert signature_of(Mine()) == {}
    assert "not yet" in caplog.text


def test_signature_that_fits_is_lost_or_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    given = {"inputs": [{"name": "x", "shape": (None, 3)}], "scale": 0.5, "n": 2**63, "ü": True}
    kept = signature_of(SimpleNamespace(model_signature=MappingProxyType(given)))
    assert kept == {**given, "inputs": [{"name": "x", "shape": [None, 3]}]}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(kept)) == kept
    assert signature_of(SimpleNamespace()) == signature_of(SimpleNamespace(model_signature="v1")) == {}
    assert not caplog.records
