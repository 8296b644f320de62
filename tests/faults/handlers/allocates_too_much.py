"""Asks for more memory than any machine has."""


def handle(data, context):
    if data is not None:
        bytearray(1 << 60)
