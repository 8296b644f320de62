"""Threads flood stdout, stderr and logging for as long as the process lives."""

import logging
import sys
import threading

log = logging.getLogger(__name__)


def flood(say):
    while True:
        say("noise " * 20)


class PrintsForever:
    def initialize(self, context):
        for say in (print, lambda text: print(text, file=sys.stderr), log.info):
            threading.Thread(target=flood, args=(say,), daemon=True).start()

    def handle(self, data, context):
        return [row["body"] for row in data]
