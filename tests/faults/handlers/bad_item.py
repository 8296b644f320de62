"""A request with the body "bad" raises, and takes its whole batch with it; others are echoed."""


def handle(data, context):
    if data is None:
        return None
    for row in data:
        if bytes(row.pop("body") if row["body"] in ("bad", b"bad") else b"") == b"bad":
            raise ValueError("a bad item")
    return [row["body"] for row in data]
