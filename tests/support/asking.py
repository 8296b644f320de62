"""Questions to models that are served without a handler: one, several at once, and the answer's arrays."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.server import LiveServer, Reply

JSON = {"content-type": "application/json"}


def ask(server: LiveServer, model: str, item: Any) -> Any:
    """The answer to one item, sent as JSON."""
    reply = server.request("POST", f"/predictions/{model}", json.dumps(item).encode(), JSON)
    assert reply.status == 200, (reply, server.log_text())
    return reply.json()


def ask_npy(server: LiveServer, model: str, array: Any) -> Any:
    """The answer to an array, sent as a ``.npy`` file."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, array)
    reply = server.request("POST", f"/predictions/{model}", file.getvalue())
    assert reply.status == 200, (reply, server.log_text())
    return reply.json()


def ask_together(server: LiveServer, model: str, items: Sequence[Any]) -> list[Any]:
    """The answers to several items that are sent at once."""
    with ThreadPoolExecutor(len(items)) as threads:
        return list(threads.map(lambda item: ask(server, model, item), items))


def largest_batch(server: LiveServer, model: str) -> int:
    """A bound that is not below the size of the largest batch that this model's handler was given."""
    text = server.request("GET", "/metrics?name[]=mlserve_batch_size", api="metrics").body.decode()
    from prometheus_client.parser import text_string_to_metric_families

    counts = [
        (float(one.labels["le"]), one.value)
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == "mlserve_batch_size_bucket" and one.labels["model"] == model
    ]
    total = max(value for _, value in counts)
    return int(min(bound for bound, value in counts if value == total))


def refused(server: LiveServer, model: str, item: Any) -> str:
    """The message of the 400 that an item must get."""
    reply: Reply = server.request("POST", f"/predictions/{model}", json.dumps(item).encode(), JSON)
    assert reply.status == 400, (reply, server.log_text())
    return str(reply.json()["message"])
