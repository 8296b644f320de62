"""Paths of the inference API: TorchServe's, SageMaker's, KServe's and mlserve's own, as one pure function.

TorchServe splits paths by hand (empty segments at the end do not count) and looks at the inference routes first, which
matters where several APIs share one address: ``/models/m/invoke`` is inference, every other path below ``/models``
management.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

PREDICT, WORKFLOW, PING, API = "predict", "workflow", "ping", "api"
LIVE, READY, MODEL_READY = "live", "ready", "model_ready"
V2_SERVER, V2_LIVE, V2_READY, V2_VERSIONS = "v2_server", "v2_live", "v2_ready", "v2_versions"

EXPLAIN_FALSE = ((b"explain", b"False"),)


class InferenceRoute(NamedTuple):
    """Where a path leads.

    ``version`` is empty where none is named; ``name`` is ``None`` where the path has no place for one. ``url_path`` is
    what followed the version, ``None`` on routes whose handlers see no such header. ``headers`` are more of what
    handlers see. ``query``: query parameters are keys of the request's row.
    """

    action: str
    name: str | None = None
    version: str = ""
    explain: bool = False
    url_path: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    query: bool = False


def find_route(raw_path: str, open_inference: bool = False) -> InferenceRoute | None:
    """The route of a percent-encoded path without query, or ``None``. ``open_inference`` adds the routes of ``/v2``."""
    segments = [unquote(segment) for segment in raw_path.split("/")[1:]]
    while segments and not segments[-1]:
        segments.pop()
    if not segments:
        return InferenceRoute(API) if raw_path == "/" else None
    if segments == ["api-description"]:
        return InferenceRoute(API)
    head = segments[0]
    if head in ("predictions", "explanations"):
        return _predictions(segments)
    if head == "ping":
        return InferenceRoute(PING)
    if head == "invocations":
        return InferenceRoute(PREDICT, query=True) if len(segments) == 1 else None
    if head == "models":
        return _models(segments)
    if head.lower() == "wfpredict":
        return InferenceRoute(WORKFLOW, segments[1]) if len(segments) > 1 else None
    if head == "health" and len(segments) == 2 and segments[1] in (LIVE, READY):
        return InferenceRoute(segments[1])
    if head in ("v1", "v2") and len(segments) > 1 and segments[1] == "models":
        route = _kserve(segments)
        if route is not None:
            return route
    if head == "v2" and open_inference:
        return _open_inference(segments)
    if len(segments) in (2, 3) and segments[-1] == "predict":  # from before /predictions
        return InferenceRoute(PREDICT, head, segments[1] if len(segments) == 3 else "", query=True)
    return None


def _predictions(segments: list[str]) -> InferenceRoute | None:
    if len(segments) < 2:
        return None
    version = segments[2] if len(segments) > 2 else ""
    explain = segments[0] == "explanations"
    return InferenceRoute(PREDICT, segments[1], version, explain, url_path="/".join(segments[3:]))


def _models(segments: list[str]) -> InferenceRoute | None:
    if len(segments) == 3 and segments[2] == "invoke":
        return InferenceRoute(PREDICT, segments[1], query=True)
    if len(segments) == 3 and segments[2] == "ready":
        return InferenceRoute(MODEL_READY, segments[1])
    return None


def _kserve(segments: list[str]) -> InferenceRoute | None:
    """``/v1/models/m:predict`` and ``/v2/models/m/infer``; both versions call their explanations ``explain``."""
    verb = ""
    if segments[0] == "v1" and len(segments) == 3:
        verb = segments[2].partition(":")[2]
    elif segments[0] == "v2" and len(segments) == 4:
        verb = segments[3].replace("infer", "predict", 1)
    name = segments[2].partition(":")[0] if len(segments) > 2 else ""
    if verb == "predict":
        return InferenceRoute(PREDICT, name, headers=EXPLAIN_FALSE)
    return InferenceRoute(PREDICT, name, explain=True) if verb == "explain" else None


def _open_inference(segments: list[str]) -> InferenceRoute | None:
    if len(segments) == 1:
        return InferenceRoute(V2_SERVER)
    if segments[1:] in (["health", "live"], ["health", "ready"]):
        return InferenceRoute(V2_LIVE if segments[2] == "live" else V2_READY)
    if len(segments) > 4 and any(segment.startswith("versions") for segment in segments):
        return InferenceRoute(V2_VERSIONS)
    return None
