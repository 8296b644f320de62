"""Computes until its request is cancelled, then answers with how that was seen."""

import time


def handle(data, context):
    if data is None:
        return None
    print("computing", flush=True)
    while not context.is_cancelled(0):
        time.sleep(0.002)
    print("saw the cancel", flush=True)
    return ["stopped"] * len(data)
