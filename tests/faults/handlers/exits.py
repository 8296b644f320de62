"""The body is the code of sys.exit()."""

import sys


def handle(data, context):
    if data is not None:
        sys.exit(int(bytes(data[0]["body"])))
