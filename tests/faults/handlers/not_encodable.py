"""A set, which no answer can hold, for the body "set"; others are echoed."""


def handle(data, context):
    return None if data is None else [{1, 2} if row["body"] == b"set" else row["body"] for row in data]
