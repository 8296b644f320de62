"""Answers with the kind of output that the body names."""

import time

from mlserve.handler import PredictionError, Response


def _stream():
    yield "one"
    yield b"two"
    yield "three"


def _breaks():
    time.sleep(0.3)  # for the test to stop the server
    yield "one"
    raise ValueError("the stream broke")


def _output(kind, index, context):
    if kind == "raise":
        raise ValueError("the weights are upside down")
    if kind == "status":
        context.set_response_status(507, "Out of patience", index)
        return "no more"
    if kind == "header":
        context.set_response_header(index, "x-model", "seven")
        return "ok"
    if kind == "split":
        context.set_response_header(index, "x-evil", "a\r\nset-cookie: b=c")
        context.set_response_content_type(index, "text/plain\r\nx-injected: 1")
        return "ok"
    return {
        "dict": {"cat": 0.5, "dog": [1, None, True]},
        "str": "héllo",
        "bytes": b"\x00\x01",
        "number": 1.5,
        "none": None,
        "refuse": PredictionError(418, "I am a teapot"),
        "response": Response({"a": 1}, status=201, headers={"x-made": "yes"}),
        "stream": _stream(),
        "breaks": _breaks(),
        "odd": object(),
    }[kind]


def handle(data, context):
    return [_output(bytes(row["body"]).decode(), index, context) for index, row in enumerate(data or [])]
