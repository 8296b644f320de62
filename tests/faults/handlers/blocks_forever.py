"""A request with the body "block" never returns; others are echoed."""

import threading


def handle(data, context):
    if data is None:
        return None
    if any(row["body"] == b"block" for row in data):
        threading.Event().wait()
    return [row["body"] for row in data]
