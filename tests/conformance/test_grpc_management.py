"""The gRPC management API: what each call says, which values count as not given, how refusals end in both forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.grpc_client import JAVA, TIMEOUT, Stubs, refusal, serving

from mlserve.rpc.generated import management_pb2 as pb

HANDLERS = Path(__file__).parent / "handlers"
PROCESSING = "Processing worker updates..."


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with serving(tmp_path_factory.mktemp("own"), "modes.py", store=HANDLERS) as stubs:
        yield stubs


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with serving(tmp_path_factory.mktemp("java"), "modes.py", store=HANDLERS, settings=JAVA) as stubs:
        yield stubs


def call(stubs: Stubs, method: str, **fields: Any) -> str:
    request = getattr(pb, f"{method}Request")(**fields)
    return getattr(stubs.management, method)(request, timeout=TIMEOUT).msg


def describe(stubs: Stubs, name: str, version: str = "") -> list[dict[str, Any]]:
    return json.loads(call(stubs, "DescribeModel", model_name=name, model_version=version))


def test_a_model_goes_through_its_whole_life(own: Stubs) -> None:
    said = call(own, "RegisterModel", url="mirror.py", model_name="life", initial_workers=1, synchronous=True)
    (model,) = describe(own, "life")
    version = model["modelVersion"]
    assert said == f'Model "life" Version: {version} registered with 1 initial workers'
    assert (model["modelName"], model["minWorkers"], len(model["workers"])) == ("life", 1, 1)
    assert call(own, "ScaleWorker", model_name="life", min_worker=2) == PROCESSING
    scaled = call(own, "ScaleWorker", model_name="life", model_version=version, min_worker=1, synchronous=True)
    assert scaled == f"Workers scaled to 1 for model: life, version: {version}"
    said = call(own, "SetDefault", model_name="life", model_version=version)
    assert said == f'Default version successfully updated for model "life" to "{version}"'
    assert describe(own, "life", "all") == describe(own, "life")
    assert call(own, "UnregisterModel", model_name="life") == 'Model "life" unregistered'
    assert refusal(lambda: describe(own, "life")) == ("NOT_FOUND", "Model not found: life")


def test_register_answers_before_the_workers_are_there_unless_asked_to_wait(own: Stubs) -> None:
    assert call(own, "RegisterModel", url="mirror.py", model_name="later", initial_workers=1) == PROCESSING
    call(own, "UnregisterModel", model_name="later")


def test_numbers_below_one_count_as_not_given(own: Stubs) -> None:
    negative = dict.fromkeys(("batch_size", "max_batch_delay", "initial_workers", "response_timeout"), -3)
    said = call(own, "RegisterModel", url="mirror.py", model_name="few", synchronous=True, **negative)
    assert said.endswith("registered with 0 initial workers. Use scale workers API to add workers for the model.")
    (model,) = describe(own, "few")
    assert (model["batchSize"], model["maxBatchDelay"], model["responseTimeout"]) == (1, 100, 120)
    scaled = call(own, "ScaleWorker", model_name="few", min_worker=-1, max_worker=0, synchronous=True)
    assert scaled == "Workers scaled to 1 for model: few"
    call(own, "UnregisterModel", model_name="few")


def test_numbers_that_are_given_count(own: Stubs) -> None:
    given = {"batch_size": 4, "max_batch_delay": 7, "response_timeout": 9, "startup_timeout": 11}
    call(own, "RegisterModel", url="mirror.py", model_name="given", **given)
    (model,) = describe(own, "given")
    assert [model[name] for name in ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")] == [
        4,
        7,
        9,
        11,
    ]
    call(own, "UnregisterModel", model_name="given")


@pytest.mark.parametrize(
    ("page", "names", "token"),
    [({}, [], "0"), ({"limit": 10}, ["modes"], None), ({"limit": -1, "next_page_token": -1}, ["modes"], None)],
)
def test_models_are_listed_page_by_page(own: Stubs, page: dict[str, int], names: list[str], token: str | None) -> None:
    text = call(own, "ListModels", **page)
    found = json.loads(text)
    assert [model["modelName"] for model in found["models"]] == names
    assert found.get("nextPageToken") == token
    assert not text.endswith("\n")


ARCHIVE, HTTP = "org.pytorch.serve.archive.model.", "org.pytorch.serve.http."
REFUSALS = [
    # method, fields, code and text, the Java class of TorchServe's second line
    ("DescribeModel", {"model_name": "no"}, "NOT_FOUND", "Model not found: no", f"{ARCHIVE}ModelNotFoundException"),
    (
        "DescribeModel",
        {"model_name": "modes", "model_version": "7"},
        "NOT_FOUND",
        "Model version: 7 does not exist for model: modes",
        f"{ARCHIVE}ModelVersionNotFoundException",
    ),
    ("ScaleWorker", {"model_name": "no"}, "NOT_FOUND", "Model not found: no", f"{ARCHIVE}ModelNotFoundException"),
    (
        "ScaleWorker",
        {"model_name": "modes", "min_worker": 3, "max_worker": 1},
        "INVALID_ARGUMENT",
        "max_worker cannot be less than min_worker.",
        f"{HTTP}BadRequestException",
    ),
    (
        "SetDefault",
        {"model_name": "modes", "model_version": "4"},
        "NOT_FOUND",
        "Model version 4 does not exist for model modes",
        f"{ARCHIVE}ModelVersionNotFoundException",
    ),
    ("UnregisterModel", {"model_name": "no"}, "NOT_FOUND", "Model not found: no", f"{ARCHIVE}ModelNotFoundException"),
    ("RegisterModel", {}, "INVALID_ARGUMENT", "Parameter url is required.", f"{HTTP}BadRequestException"),
    (
        "RegisterModel",
        {"url": "mirror.py", "runtime": "python4"},
        "INVALID_ARGUMENT",
        "Invalid RuntimeType value: python4",
        f"{HTTP}BadRequestException",
    ),
    (
        "RegisterModel",
        {"url": "../x.mar"},
        "NOT_FOUND",
        "Relative path is not allowed in url: ../x.mar",
        f"{ARCHIVE}ModelNotFoundException",
    ),
    (
        "RegisterModel",
        {"url": "none.mar"},
        "NOT_FOUND",
        "Model not found at: none.mar",
        f"{ARCHIVE}ModelNotFoundException",
    ),
    (
        "RegisterModel",
        {"url": "https://elsewhere/x.mar"},
        "NOT_FOUND",
        "Given URL https://elsewhere/x.mar does not match any allowed URL(s)",
        f"{ARCHIVE}ModelNotFoundException",
    ),
]


@pytest.mark.parametrize(("method", "fields", "code", "text", "java_class"), REFUSALS)
def test_a_refusal_has_its_code_and_words(own: Stubs, java: Stubs, method, fields, code, text, java_class) -> None:
    assert refusal(lambda: call(own, method, **fields)) == (code, text)
    assert refusal(lambda: call(java, method, **fields)) == (code, f"{text}\n{java_class}")


def test_a_model_that_is_registered_already_is_refused(own: Stubs, java: Stubs) -> None:
    def again(stubs: Stubs) -> tuple[str, str]:
        return refusal(lambda: call(stubs, "RegisterModel", url="modes.py"))

    assert again(own)[0] == "ALREADY_EXISTS"
    assert again(java) == ("UNKNOWN", "")


def test_unregister_without_a_name_is_refused(own: Stubs, java: Stubs) -> None:
    text = "Parameter model_name is required."
    assert refusal(lambda: call(own, "UnregisterModel")) == ("INVALID_ARGUMENT", text)
    theirs = f"Parameter url is required.\n{HTTP}BadRequestException"  # it names the wrong one
    assert refusal(lambda: call(java, "UnregisterModel")) == ("INVALID_ARGUMENT", theirs)


def test_workers_that_do_not_start_are_told_of(java: Stubs) -> None:
    fields = {"url": "modes.py", "model_name": "bad", "handler": "nope.py", "initial_workers": 1, "synchronous": True}
    code, details = refusal(lambda: call(java, "RegisterModel", **fields))
    assert code == "INTERNAL"
    assert details.startswith("Failed to start workers for model bad version: ")
    assert details.endswith(f"\n{HTTP}InternalServerException")


def test_customized_needs_a_worker_and_an_existing_model(own: Stubs, java: Stubs) -> None:
    for stubs in (own, java):
        call(stubs, "RegisterModel", url="mirror.py", model_name="idle")
    fields = {"model_name": "idle", "customized": True}
    assert refusal(lambda: call(own, "DescribeModel", **fields))[0] == "UNAVAILABLE"
    theirs = ("INTERNAL", f"InternalServerException.()\n{HTTP}InternalServerException")
    assert refusal(lambda: call(java, "DescribeModel", **fields)) == theirs
    unknown = {"model_name": "no", "customized": True}
    assert refusal(lambda: call(own, "DescribeModel", **unknown))[0] == "NOT_FOUND"
    assert refusal(lambda: call(java, "DescribeModel", **unknown))[0] == "INTERNAL"
    no_worker = refusal(lambda: java.predict("x", model="idle"))
    assert no_worker[0] == "INTERNAL"
    assert no_worker[1].startswith('Model "idle" has no worker to serve inference request. Please use scale workers')
    assert no_worker[1].endswith("\nInternalServerException.()")
    assert refusal(lambda: own.predict("x", model="idle"))[0] == "UNAVAILABLE"
