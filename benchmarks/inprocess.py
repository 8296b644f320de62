"""The ceiling: the same handler on the same bodies in a bare loop, no server; and the answers that are right.

    python inprocess.py HANDLER FOLDER SECONDS SORT BODY…

prints one JSON line. With 0 seconds: the answer to each body, alone. Otherwise rows per second of batches of 8, the
bodies in turn as clients send them, or by length where SORT is 1. Whole passes only, so that the mix is the same.
"""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BATCH = 8


def run(python: Path, handler: Path, folder: Path, files: Sequence[Path], seconds: float, *, sort: bool = False) -> Any:
    """What the program below prints, from a process of its own."""
    command = [python, __file__, handler, folder, seconds, int(sort), *files]
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the in-process loop failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def load(handler: str, folder: str) -> Any:
    """The handler, loaded."""
    spec = importlib.util.spec_from_file_location("handler", handler)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.Handler()
    found.load(folder)
    return found


def main(file: str, folder: str, seconds: str, sort: str, *files: str) -> None:
    """Answer each body, or loop until the time is over."""
    handler, bodies = load(file, folder), [bytearray(Path(name).read_bytes()) for name in files]
    if float(seconds) == 0:
        answers = [handler.run([body])[0] for body in bodies]
        texts = [answer if isinstance(answer, str) else json.dumps(answer, default=bytes.hex) for answer in answers]
        print(json.dumps(texts))
        return
    rows = bodies * BATCH
    if sort == "1":
        rows.sort(key=len)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    for batch in [*batches, *batches] if len(batches) > 1 else batches * 3:  # TorchScript compiles meanwhile
        handler.run(batch)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < float(seconds):
        for batch in batches:
            done += len(handler.run(batch))
    print(json.dumps(done / (time.perf_counter() - started)))


if __name__ == "__main__":
    main(*sys.argv[1:])
