"""A handler called by several threads at once, each of its copy, as a worker with ``handlerThreads`` does it."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlserve.archive.modelfiles import manifest_for, manifest_for_folder
from mlserve.handler import Context, RequestInfo, Response
from mlserve.worker.contexts import own_context
from mlserve.worker.loader import Entry, load

ROUNDS = 30


def loaded(handler: str, model: Path, config: dict[str, Any], threads: int = 2) -> tuple[Entry, Context]:
    """A built-in handler with a model file or folder; ``config`` is its model-config.yaml."""
    manifest = manifest_for_folder(model) if model.is_dir() else manifest_for(model)
    folder = model if model.is_dir() else model.parent
    context = Context("model", str(folder), manifest, 8, None, config)
    context.handler_threads = threads
    return load(handler, "", _named(context), lambda value: value), context


def _named(context: Context) -> Context:
    context.begin([RequestInfo("load")])
    return context


def answers(entry: Entry, context: Context, bodies: Sequence[Any]) -> list[Any]:
    """What one batch of these bodies is answered; JSON is parsed."""
    context.begin([RequestInfo(str(index)) for index in range(len(bodies))])
    return [_value(one) for one in entry.call([{"body": body} for body in bodies], context)]


def _value(answer: Any) -> Any:
    if isinstance(answer, Response):
        answer = answer.body
    return json.loads(answer) if isinstance(answer, (bytes, str)) else answer


def check(entry: Entry, context: Context, batches: Sequence[Sequence[Any]], tolerance: float = 0.0) -> None:
    """Have one thread for each batch answer it over and over, and compare with what it is answered alone."""
    expected = [answers(entry, context, batch) for batch in batches]
    assert all(one != expected[0] for one in expected[1:]), "equal answers would not show whose they are"
    found: list[str] = []
    together = threading.Barrier(len(batches))

    def work(number: int) -> None:
        try:
            own = own_context(context)
            mine = entry.for_thread(own)
            together.wait()
            for _ in range(ROUNDS):
                now = answers(mine, own, batches[number])
                if not _same(now, expected[number], tolerance):
                    found.append(f"{now} instead of {expected[number]}")
                    return
        except BaseException as error:
            found.append(repr(error))
            together.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not found, found[0][:2000]


def _same(now: Any, before: Any, tolerance: float) -> bool:
    if isinstance(before, dict):
        return now.keys() == before.keys() and all(_same(now[key], before[key], tolerance) for key in before)
    if isinstance(before, list):
        return len(now) == len(before) and all(map(_same, now, before, [tolerance] * len(now)))
    if isinstance(before, float):
        return abs(now - before) <= tolerance
    return bool(now == before)
