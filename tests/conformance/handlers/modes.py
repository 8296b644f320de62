"""Does what the request asks for, so that every way to end a call can be seen from outside."""

import os
import time

from mlserve.handler import PredictionError

TOTALS = {}


def handle(data, context):
    return [answer(row, context, index) for index, row in enumerate(data)]


def answer(row, context, index):
    text = bytes(row.get("data", row.get("body", b""))).decode()
    word, _, rest = text.partition(" ")
    if word == "raise":
        raise ValueError("no such thing")
    if word == "memory":
        raise MemoryError("too much")
    if word == "code":
        raise PredictionError(int(rest), "chosen words")
    if word == "die":
        os._exit(3)
    if word == "status":
        context.set_response_status(code=int(rest), idx=index)
        return "sent all the same"
    if word == "sleep":
        time.sleep(float(rest))
        return rest
    if word == "mark":  # tells that it has begun, and takes a second
        with open(rest, "w"):
            time.sleep(1)
        return "done"
    if word == "size":
        return b"x" * int(rest)
    if word == "pieces":
        return (f"{number} " for number in range(int(rest)))
    if word == "types":
        return {name: type(value).__name__ for name, value in sorted(row.items())}
    if word == "headers":
        return dict(context.get_all_request_header(index))
    if word == "add":
        name = context.get_request_header(index, "ts_request_sequence_id")
        TOTALS[name] = TOTALS.get(name, 0) + int(rest)
        return str(TOTALS[name])
    return text
