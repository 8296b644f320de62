"""TorchServe's OpenAPI documents: the same structure to the last key, which generated clients are made from."""

import hashlib
import json
from typing import Any

import pytest

from mlserve.protocols import openapi_torchserve as documents


def without_prose(value: Any) -> Any:
    """``value`` with every description emptied: the words are ours, the structure is not."""
    if isinstance(value, dict):
        return {
            key: "" if key == "description" and isinstance(item, str) else without_prose(item)
            for key, item in value.items()
        }
    return [without_prose(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("document", "digest"),
    [
        (documents.inference_api(), "f53494c8974d0fccc293783e75b30e51"),
        (documents.management_api(), "fa4ad384b4a0722e3c3acaaaae6a1898"),
        (documents.metrics_api(), "573049440790ba3d29c2c535c05ac29c"),
        (documents.predict_api("noop"), "5829d0e15a9e95e1eb9daa5d051cf7de"),
        (documents.model_management_api("noop"), "62c71c5e1faa85182d573d879fb1a74c"),
    ],
    ids=["inference", "management", "metrics", "predict", "model"],
)
def test_document_has_another_structure_than_torchserves(document: Any, digest: str) -> None:
    """The digests are those of TorchServe 0.12's own documents, whose keys are in the same order."""
    text = json.dumps(without_prose(document))
    assert hashlib.sha256(text.encode()).hexdigest()[:32] == digest, text


def test_shared_listener_hides_an_api() -> None:
    paths = list(documents.single_listener_api()["paths"])
    assert paths[0] == "/"
    for path in [*documents.inference_api()["paths"], *documents.management_api()["paths"]]:
        assert paths.count(path) == 1


def test_parameter_is_not_described() -> None:
    for path, operations in documents.management_api()["paths"].items():
        for operation in operations.values():
            assert all(row["description"] for row in operation["parameters"]), path
