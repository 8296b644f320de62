"""Streams "0 ", "1 ", ... as many pieces as the body says; "fail" raises after one piece, "plain" does not stream.

"wait" streams until its request is cancelled, and prints "closed" when its generator is.
"""

import itertools
import time


def pieces(word):
    if word == "wait":
        try:
            for number in itertools.count():
                yield f"{number} "
                time.sleep(0.005)
        finally:
            print("closed", flush=True)
    yield "0 "
    if word == "fail":
        raise ValueError("the stream broke")
    for number in range(1, int(word)):
        yield f"{number} "


def handle(data, context):
    if data is None:
        return None
    words = [bytes(row["body"]).decode() for row in data]
    return ["plain" if word == "plain" else pieces(word) for word in words]
