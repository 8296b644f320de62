"""``ts.launcher``: start and stop a server from a script by the ``torchserve`` command on PATH, and register models.

``start`` returns when the ready line has come, with a queue of the server's further output lines, ended by ``None``;
the lines are printed too.
"""

from __future__ import annotations

import importlib
import subprocess
import threading
from collections.abc import Sequence
from queue import Empty, Full, Queue
from typing import IO, Any

READY = "Model server started"
KEPT = 1000  # lines that nobody has read yet


def start(
    model_store: str | None = None,
    snapshot_file: str | None = None,
    no_config_snapshots: bool = False,
    plugin_folder: str | None = None,
    disable_token: bool = False,
    models: str | Sequence[str] | None = None,
    enable_model_api: bool = False,
) -> Queue[str | None]:
    """Stop what runs, start a server, wait for its ready line (or the end of its output)."""
    stop()
    command = ["torchserve", "--start"]
    for flag, value in (
        ("--model-store", model_store),
        ("--plugins-path", plugin_folder),
        ("--ts-config", snapshot_file),
    ):
        command += [flag, value] if value else []
    for flag, wanted in (
        ("--no-config-snapshots", no_config_snapshots),
        ("--disable-token-auth", disable_token),
        ("--enable-model-api", enable_model_api),
    ):
        command += [flag] if wanted else []
    if models:
        command += ["--models", *([models] if isinstance(models, str) else models)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line.strip())
        if READY in line:
            break
    lines: Queue[str | None] = Queue(maxsize=KEPT)
    threading.Thread(target=_forward, args=(process.stdout, lines), name="torchserve-output").start()
    return lines


def stop(wait: bool = True) -> None:
    """Stop the server; with ``wait``, return when it has ended."""
    command = ["torchserve", "--stop", *(["--foreground"] if wait else [])]
    subprocess.run(command, check=False)


def register_model_with_params(params: Any) -> Any:
    """Register with the management API's default address; returns the ``requests`` response."""
    requests = importlib.import_module("requests")  # the caller's, who reads its response
    return requests.post("http://localhost:8081/models", params=params, timeout=600)


def register_model(model_name: str, url: str) -> Any:
    """Register ``url`` as ``model_name`` with one worker and wait until it is ready."""
    return register_model_with_params(
        {"model_name": model_name, "url": url, "initial_workers": "1", "synchronous": "true"}
    )


def _forward(stream: IO[str], lines: Queue[str | None]) -> None:
    """Print the rest of the output and keep it; where nobody reads, the newest lines are dropped."""
    for line in stream:
        print(line.strip())
        try:
            lines.put_nowait(line)
        except Full:
            continue
    while True:  # the end must be seen, whatever it displaces
        try:
            lines.put_nowait(None)
            return
        except Full:
            try:
                lines.get_nowait()
            except Empty:
                continue
