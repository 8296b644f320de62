"""No fault: answers with what it got, and with its process id when the body is "pid"."""

import os


def handle(data, context):
    if data is None:
        return None
    return [str(os.getpid()) if row["body"] in ("pid", b"pid") else row["body"] for row in data]
