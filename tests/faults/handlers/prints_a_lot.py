"""Floods stdout, stderr and logging on every request."""

import logging
import sys

log = logging.getLogger(__name__)


def handle(data, context):
    if data is None:
        return None
    for number in range(200):
        print("m\x01" * 200, number)
        print("noise on stderr", number, file=sys.stderr)
        log.info("noise %d", number)
    return [row["body"] for row in data]
