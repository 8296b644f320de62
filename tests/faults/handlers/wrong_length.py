"""One element too many."""


def handle(data, context):
    return None if data is None else ["x"] * (len(data) + 1)
