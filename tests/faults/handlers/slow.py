"""The body is how many seconds the batch takes; the longest counts. Sleeping releases the interpreter's lock."""

import time


def handle(data, context):
    if data is None:
        return None
    time.sleep(max(float(bytes(row["body"])) for row in data))
    return ["done"] * len(data)
