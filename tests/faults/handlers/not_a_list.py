"""A tuple where a list is due."""


def handle(data, context):
    return None if data is None else tuple("x" for _ in data)
