"""Every request fails."""


def handle(data, context):
    if data is not None:
        raise ValueError("this handler always fails")
