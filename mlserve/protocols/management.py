"""The management API of TorchServe as pure translation: paths and parameters -> calls, results -> JSON.

REST and gRPC doors share it. Parameters are lenient where TorchServe's are, because deployed scripts lean on that: a
number that cannot be read counts as not given. A number that can be read but makes no sense is an ``InvalidInput``
that names the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

from mlserve.errors import InvalidInput, MethodNotAllowed, ModelNotFound, RouteNotFound, ServeError
from mlserve.protocols import lenient_json
from mlserve.protocols.errors import JavaFailure

MAX_WORKERS = 1000  # per version: a typing error must not fork a machine to death

REGISTER_PARAMETERS = (
    "url", "model_name", "runtime", "handler", "batch_size", "max_batch_delay", "initial_workers", "synchronous",
    "response_timeout", "startup_timeout", "s3_sse_kms",
)  # fmt: skip
SCALE_PARAMETERS = ("min_worker", "max_worker", "synchronous", "timeout", "number_gpu", "model_version")
LIST_PARAMETERS = ("limit", "next_page_token")

_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,10}(\.[0-9]{1,9})?")
_INT32 = 1 << 31  # numbers beyond TorchServe's ints cannot be read there either
_RUNTIMES = ("python", "python3", "LSP")
_TEXTS = ("url", "model_name", "runtime", "handler")
_NUMBERS = ("batch_size", "max_batch_delay", "initial_workers", "response_timeout", "startup_timeout")


# -- paths ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """What a request asks for: one of the actions of :func:`route`, and for which model."""

    action: str
    name: str = ""
    version: str = ""


class WrongMethod(MethodNotAllowed):
    """The path exists; ``allowed`` are the methods it takes."""

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__("")
        self.allowed = tuple(allowed)


def route(method: str, raw_path: str) -> Route:
    """Find the action for a method and a percent-encoded path without query.

    Empty segments at the end do not count. Raises :class:`RouteNotFound` or :class:`WrongMethod`.
    """
    segments = [unquote(segment) for segment in raw_path.split("/")[1:]]
    while segments and not segments[-1]:
        segments.pop()
    if "" in segments:
        raise RouteNotFound("")
    if segments == ["api-description"]:  # by any method, as at the other APIs
        return Route("api")
    actions, name, version = _actions(segments)
    action = actions.get("GET" if method == "HEAD" else method)
    if action is None:
        raise WrongMethod(tuple(actions))
    return Route(action, name, version)


def _actions(segments: Sequence[str]) -> tuple[dict[str, str], str, str]:
    """(method -> action, model name, version) of a path."""
    if not segments:
        return {"OPTIONS": "api"}, "", ""
    head, rest = segments[0], segments[1:]
    if head == "v1" and len(segments) == 3 and segments[1] == "models":
        return {"GET": "readiness"}, segments[2].partition(":")[0], ""
    if head != "models":
        raise RouteNotFound("")
    if not rest:
        return {"GET": "list", "POST": "register"}, "", ""
    name = rest[0]
    version = rest[1] if len(rest) > 1 else ""
    if len(rest) == 3 and rest[2] == "set-default":  # TorchServe describes there, too
        return {"PUT": "set_default", "GET": "describe"}, name, version
    if len(rest) > 2:
        raise RouteNotFound("")
    return {"GET": "describe", "PUT": "scale", "DELETE": "unregister", "OPTIONS": "model_api"}, name, version


# -- parameters -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RegisterCall:
    """Arguments of ``InferenceService.register``; ``overrides`` holds explicit values only."""

    url: str
    overrides: dict[str, Any] = field(default_factory=dict)
    initial_workers: int | None = None
    synchronous: bool = True


@dataclass(frozen=True)
class ScaleCall:
    """Arguments of ``InferenceService.scale``. ``version`` is the ``model_version`` parameter."""

    version: str = ""
    min_workers: int = 1
    max_workers: int = 1
    synchronous: bool = False


@dataclass(frozen=True)
class ListCall:
    """A page of the model list: at most ``limit`` models from position ``offset`` on."""

    limit: int = 100
    offset: int = 0


def read_parameters(
    query: Mapping[str, str], content_type: str, body: bytes, *, lenient: bool = False
) -> dict[str, Any]:
    """Parameters from the query and, where there is one, from a JSON body; the body's win.

    ``query`` must yield the first value of a repeated key. Raises :class:`InvalidInput` for a body that is declared
    as JSON and is not a JSON object. ``lenient`` reads what TorchServe's parser reads, and calls a failure its name.
    """
    parameters: dict[str, Any] = {name: query[name] for name in query}
    if body.strip() and content_type.partition(";")[0].strip().lower() == "application/json":
        try:
            document = (lenient_json.loads if lenient else orjson.loads)(body)
            if not isinstance(document, dict):
                raise TypeError(f"must be a JSON object, got {type(document).__name__}")
            given = {name: value for name, value in document.items() if value is not None}
            parameters.update(_converted(given) if lenient else given)
        except TypeError as error:
            raise _bad_body(f"The request body {error}", lenient) from None
        except ValueError as error:
            raise _bad_body(f"The request body is not valid JSON: {error}", lenient) from None
    return parameters


def _bad_body(text: str, lenient: bool) -> ServeError:
    return JavaFailure("com.google.gson.JsonSyntaxException", text) if lenient else InvalidInput(text)


def _converted(given: dict[str, Any]) -> dict[str, Any]:
    """Values as the parameters' types: numbers may be texts and texts numbers. Raises ValueError where they cannot."""
    result = {}
    for name, value in given.items():
        if name in _TEXTS and isinstance(value, (bool, int, float)):
            value = str(value).lower() if isinstance(value, bool) else str(value)
        elif name in _NUMBERS and (isinstance(value, bool) or _integer({name: value}, name) is None):
            raise ValueError(f"{name}: a whole number was expected, got {str(value)[:40]!r}")
        elif name in REGISTER_PARAMETERS and isinstance(value, (dict, list)):
            raise ValueError(f"{name}: a single value was expected")
        result[name] = value
    return result


def parse_register(parameters: Mapping[str, Any], *, lenient: bool = False) -> RegisterCall:
    """Raises :class:`InvalidInput`, or :class:`ModelNotFound` for a URL that cannot name a model.

    ``lenient`` takes as not given what makes no sense, as TorchServe's scripts are used to.
    """
    url = _text(parameters, "url")
    if url is None:
        raise InvalidInput("Parameter url is required.")
    overrides: dict[str, Any] = {}
    for name in ("model_name", "handler", "runtime"):
        text = _text(parameters, name)
        if text or (lenient and text is not None and name == "runtime"):  # TorchServe knows no empty runtime
            overrides[name] = text
    if overrides.get("runtime", "python") not in _RUNTIMES:
        raise InvalidInput(f"Invalid RuntimeType value: {overrides['runtime']}")
    if not url:
        raise ModelNotFound("empty url")
    if ".." in url:
        raise ModelNotFound(f"Relative path is not allowed in url: {url}")
    if _boolean(parameters, "s3_sse_kms", False):
        overrides["s3_sse_kms"] = True
    batch_size = _integer(parameters, "batch_size")
    if batch_size is not None and not (lenient and batch_size < 1):
        overrides["batch_size"] = _at_least("batch_size", batch_size, 1)
    delay = _number(parameters, "max_batch_delay")
    if delay is not None and not (lenient and delay < 0):
        overrides["max_batch_delay_ms"] = _at_least("max_batch_delay", delay, 0)
    for name in ("response_timeout", "startup_timeout"):
        seconds = _number(parameters, name)
        if seconds is not None and seconds <= 0 and not lenient:
            raise InvalidInput(f"{name} must be greater than 0 seconds, got {seconds:g}")
        if seconds is not None and seconds >= 0:  # 0 is taken, and then the start of workers fails
            overrides[name] = seconds
    workers = _integer(parameters, "initial_workers")
    if workers is not None:
        workers = _at_most("initial_workers", max(0, workers), MAX_WORKERS)
    return RegisterCall(url, overrides, workers, _boolean(parameters, "synchronous", True))


def parse_scale(parameters: Mapping[str, Any], *, lenient: bool = False) -> ScaleCall:
    """Raises :class:`InvalidInput`. ``timeout`` and ``number_gpu`` are accepted and, as in TorchServe, do nothing.

    ``lenient`` takes a negative ``min_worker`` as 0, and fails as TorchServe does where nothing else is asked for.
    """
    low = _integer(parameters, "min_worker")
    low = 1 if low is None else low
    high = _integer(parameters, "max_worker")
    high = low if high is None else _at_most("max_worker", high, MAX_WORKERS)
    if lenient and low <= high < 0:
        raise JavaFailure("java.lang.IndexOutOfBoundsException", f"Index {high} out of bounds for length 0")
    low = _at_most("min_worker", max(0, low) if lenient and high >= 0 else _at_least("min_worker", low, 0), MAX_WORKERS)
    if high < low:
        raise InvalidInput("max_worker cannot be less than min_worker.")
    return ScaleCall(_text(parameters, "model_version") or "", low, high, _boolean(parameters, "synchronous", False))


def parse_list(parameters: Mapping[str, Any]) -> ListCall:
    """A limit of 1 to 100, else 100 (0 stays 0 and gives an empty page); a token that cannot be read is 0."""
    limit = _integer(parameters, "limit")
    offset = _integer(parameters, "next_page_token")
    return ListCall(
        limit=100 if limit is None or not 0 <= limit <= 100 else limit,
        offset=0 if offset is None or offset < 0 else offset,
    )


def _text(parameters: Mapping[str, Any], name: str) -> str | None:
    value = parameters.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"Parameter {name} must be a text, got {type(value).__name__}")
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise InvalidInput(f"Parameter {name} must not hold control characters")
    return value


def _number(parameters: Mapping[str, Any], name: str) -> float | None:
    """The value of a parameter that may have decimals, or None where there is no readable one."""
    value = parameters.get(name)
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if not isinstance(value, (int, float)) or not -_INT32 <= value < _INT32:
        return None
    return float(value)


def _integer(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        return None
    number = _number(parameters, name)
    return int(number) if number is not None and number.is_integer() else None


def _boolean(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    """As Java's parseBoolean: "true" in any case is true, any other text is false."""
    value = parameters.get(name)
    if value is None:
        return default
    return value.lower() == "true" if isinstance(value, str) else value is True


def _at_least(name: str, value: Any, low: int) -> Any:
    if value < low:
        raise InvalidInput(f"{name} must be at least {low}, got {value:g}")
    return value


def _at_most(name: str, value: int, high: int) -> int:
    if value > high:
        raise InvalidInput(f"{name} must be at most {high}, got {value}")
    return value
