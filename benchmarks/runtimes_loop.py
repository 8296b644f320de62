"""The ceiling of ``scripts/bench runtimes``: one model's runtime on ready batches in a bare loop, without a server.

``Loop`` is the parent's end. The process itself loads the model as a worker does, with the variables of the server's
worker (so as many threads, and the same allocator), computes one batch, and says what it answers; then it reads a
number of seconds from its standard input, loops that long, prints the rate, and waits for the next.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.runtimes_models import BATCH, Case


class Loop:
    """The process. ``expected`` is the in-process answer to the case's request: name of the output -> its values."""

    def __init__(self, case: Case, env: Mapping[str, str], log: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.runtimes_loop", str(case.path), str(case.body)]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, env=dict(env), cwd=Path(__file__).parents[1], stderr=errors,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        self.log, self.total = log, 0
        first = self._read()
        self.name: str = first["runtime"]
        self.expected: dict[str, Any] = first["expected"]

    def rate(self, seconds: float) -> float:
        """Rows per second of a run of so many seconds; ``total`` counts the rows of all runs."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        found = self._read()
        self.total += int(found["rows"])
        return float(found["rate"])

    def stop(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # libraries print there, too
            if line.startswith("LOOP "):
                found: dict[str, Any] = json.loads(line.removeprefix("LOOP "))
                return found
        raise RuntimeError(f"the in-process loop failed:\n{self.log.read_text(errors='replace')[-2000:]}")


def loaded(path: Path, body: bytes) -> tuple[str, Callable[[], Any], dict[str, Any]]:
    """(the runtime's name, the call that answers one batch of ``body``, the answer of its first row)."""
    import numpy as np
    import yaml

    from mlserve.archive.modelfiles import manifest_for, manifest_for_folder
    from mlserve.handler import Context
    from mlserve.handlers import batches, items
    from mlserve.handlers.auto import ModelHandler
    from mlserve.handlers.embedding import EmbeddingHandler

    folder = path if path.is_dir() else path.parent
    config = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8"))
    manifest = manifest_for_folder(path) if path.is_dir() else manifest_for(path)
    context = Context("loop", str(folder), batch_size=BATCH, manifest=manifest, model_yaml_config=config)
    if path.is_dir():
        encoder = EmbeddingHandler()
        encoder.initialize(context)
        texts = [body.decode()] * BATCH
        first = encoder.embed(texts)[0]
        return encoder.model_signature["runtime"], lambda: encoder.embed(texts), {"": first.tolist()}
    handler = ModelHandler()
    handler.initialize(context)
    row = items.decode({"body": body if body.startswith(items.NPY) else json.loads(body)}, handler.signature)
    batch: batches.Arrays = {
        one.name: np.concatenate([row.arrays[one.name]] * BATCH, axis=one.axis or 0) for one in handler.signature.inputs
    }
    runtime = handler.runtime
    return runtime.name, lambda: runtime.infer(batch), {n: v[0].tolist() for n, v in runtime.infer(batch).items()}


def main(path: str, body: str) -> None:
    """Load, answer once, then loop as often as asked."""
    name, call, expected = loaded(Path(path), Path(body).read_bytes())
    print("LOOP " + json.dumps({"runtime": name, "expected": expected}), flush=True)
    for line in sys.stdin:
        done, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < float(line):
            call()
            done += BATCH
        print("LOOP " + json.dumps({"rate": done / spent, "rows": done}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
