"""A request with the body "crash" reads address 0; others are echoed."""

import ctypes


def handle(data, context):
    if data is None:
        return None
    if any(row["body"] == b"crash" for row in data):
        ctypes.string_at(0)
    return [row["body"] for row in data]
