"""A request with the body "refuse" is refused with 418, by element of the answer; "raise" by exception."""

from mlserve.handler import PredictionError


def handle(data, context):
    if data is None:
        return None
    if any(row["body"] == b"raise" for row in data):
        raise PredictionError(418, "I am a teapot")
    return [PredictionError(418, "no coffee") if row["body"] == b"refuse" else row["body"] for row in data]
