"""The ceiling: the same handler on the same rows in a bare loop, no server. Run as a program; prints one JSON line.

python -m benchmarks.inprocess ARCHIVE_FOLDER BODY BATCH SECONDS EXPECTED_TEXT
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace


def measure(python: str, archive: Path, body: Path, *, batch: int, seconds: float, expect: str) -> float:
    """Rows per second of the loop, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(archive).extractall(folder)
        command = [python, "-m", "benchmarks.inprocess", folder, str(body), str(batch), str(seconds), expect]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the in-process loop failed:\n{done.stdout}{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["rows_per_second"])


def main(folder: str, body: str, batch: str, seconds: str, expect: str) -> None:
    """Load the handler as a server does, run two batches to warm up, then loop until the time is over."""
    manifest = json.loads((Path(folder) / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
    spec = importlib.util.spec_from_file_location("handler", Path(folder) / manifest["model"]["handler"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = SimpleNamespace(manifest=manifest, system_properties={"model_dir": folder, "gpu_id": None})
    handler = module.Classifier()
    handler.initialize(context)
    rows = [{"body": bytearray(Path(body).read_bytes())} for _ in range(int(batch))]
    for _ in range(2):
        handler.handle(rows, context)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < float(seconds):
        answers = handler.handle(rows, context)
        assert all(expect in json.dumps(answer) for answer in answers), answers
        done += len(answers)
    print(json.dumps({"rows_per_second": done / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
