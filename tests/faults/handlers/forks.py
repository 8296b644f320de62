"""Leaves a forked child behind that logs and lives on; the body says for how many seconds. Answers with its id."""

import logging
import os
import time


def handle(data, context):
    if data is None:
        return None
    pid = os.fork()
    if pid == 0:
        logging.getLogger(__name__).warning("from the child")
        time.sleep(float(bytes(data[0]["body"])))
        os._exit(0)
    return [str(pid)] * len(data)
