"""Answers with what it was given, so that a test sees what a handler sees."""

import json


def _plain(value):
    if isinstance(value, (bytes, bytearray)):
        return {"type": type(value).__name__, "value": bytes(value[:100]).decode("latin-1"), "length": len(value)}
    return {"type": type(value).__name__, "value": value}


def handle(data, context):
    answers = []
    for index, row in enumerate(data or []):
        seen = {
            "row": {name: _plain(value) for name, value in row.items()},
            "headers": context.get_all_request_header(index),
            "request_id": context.get_request_id(index),
        }
        answers.append(json.dumps(seen))
        context.set_response_content_type(index, "application/json")
    return answers
