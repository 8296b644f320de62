"""What the fast lane answers without asking any model: health checks, and predictions of models that are not there.

Both are what clients of a server that starts send again and again. They would have aiohttp imported just then, when
the first worker needs the cores. The answers are those of ``rest.inference``; it has them for everybody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlserve.core.service import InferenceService
from mlserve.errors import ModelNotFound, VersionNotFound
from mlserve.protocols.errors import json_body
from mlserve.protocols.inference_routes import LIVE, PING, READY, V2_LIVE, V2_READY, find_route
from mlserve.protocols.torchserve import JSON, Answer, HttpOptions, encode_error
from mlserve.protocols.torchserve_texts import NO_CACHE, reason_phrase
from mlserve.rest.routes import Route

_PREDICTION = re.compile(r"/(?:predictions|explanations)/([\w.~-]+)(?:/([\w.~-]+))?", re.ASCII)
_PROBES = (PING, LIVE, READY, V2_LIVE, V2_READY)
_FRAMING = (b"content-length", b"transfer-encoding", b"expect")


def health_answer(service: InferenceService, action: str) -> tuple[int, dict[str, object]]:
    """Status and body of a health check: ``action`` is the one of its route.

    TorchServe's ``/ping`` is 200 ``Healthy`` when every required model has a ready worker, else 500; ``/health/ready``
    is 503 then, and has the state of each model. KServe's of TorchServe look at nothing.
    """
    if action in (LIVE, V2_LIVE):
        return 200, {"live": True}  # the process runs and its event loop turns
    if action == V2_READY:
        return 200, {"ready": True}
    health = service.health()
    if action == PING:
        return (200, {"status": "Healthy"}) if health.ready else (500, {"status": "Unhealthy"})
    return 200 if health.ready else 503, {"ready": health.ready, "models": health.models}


class Told:
    """Finds the answers. ``max_request_size``: in bytes; of what is larger aiohttp reads no more than it must."""

    def __init__(self, service: InferenceService, options: HttpOptions, max_request_size: int) -> None:
        self._service = service
        self._options = options
        self._max_request_size = max_request_size
        self._headers = () if options.torchserve_style else (("cache-control", dict(NO_CACHE)["Cache-Control"]),)

    def route(self, method: bytes, path: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Route | None:
        """The route of a request whose path is not in the route table; None where that is aiohttp's to answer."""
        try:
            text = path.decode("ascii")
        except UnicodeDecodeError:
            return None
        framing = {name.lower(): value for name, value in headers if name.lower() in _FRAMING}
        found = _PREDICTION.fullmatch(text)
        if found is not None:
            length = framing.pop(b"content-length", b"0")
            if framing or not length.isdigit() or int(length) > self._max_request_size:
                return None
            return self._missing(found[1], found[2] or "")
        route = find_route(text, self._options.open_inference) if method == b"GET" and not framing else None
        if route is None or route.action not in _PROBES:
            return None
        action = route.action
        return Route(None, False, tell=lambda: self._health(action))

    def _missing(self, name: str, version: str) -> Route | None:
        try:
            self._service.find(name, version)
        except (ModelNotFound, VersionNotFound) as error:
            answer = encode_error(error, self._options, name, version)
            answer.headers = (*answer.headers, *self._headers)
            return Route(None, False, tell=lambda: answer)
        return None

    def _health(self, action: str) -> Answer:
        status, value = health_answer(self._service, action)
        reason = reason_phrase(status) if self._options.torchserve_style else ""
        return Answer(status, json_body(value), JSON, self._headers, reason)
