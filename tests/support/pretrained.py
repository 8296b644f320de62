"""A server of models that transformers loads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import LiveServer, running


@contextlib.contextmanager
def serving(directory: Path, *models: str, **options: Any) -> Iterator[LiveServer]:
    """``running``, with batches of up to 8 that wait 50 ms for each other.

    torch makes the directory of its compiler's cache as soon as transformers imports it. Here it lies beside the
    server's temporary directory, in which nothing may be left.
    """
    settings = {"DEFAULTS_BATCH_SIZE": "8", "DEFAULTS_MAX_BATCH_DELAY_MS": "50", "DEFAULTS_BATCH_POLICY": "window"}
    settings["DEFAULTS_STARTUP_TIMEOUT"] = "600"  # for all workers to import transformers: 5 s each on a free CPU
    settings.update(options.pop("settings", {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(directory / "inductor"))
        with running(directory, *models, settings=settings, **options) as live:
            yield live
