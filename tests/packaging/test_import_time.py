"""Starting `mlserve --help` and a worker stays quick: heavy imports are named, and the time is held to a budget.

The budget is a ratio to a plain `import asyncio` on the same machine at the same moment, because seconds mean nothing
on a shared machine: best of five, the two in turn.
"""

import json
import subprocess
import sys
import time

import pytest

SERVER_ONLY = ("aiohttp", "grpc", "uvloop", "httptools", "prometheus_client")
ALWAYS_LAZY = ("torch", "numpy", "PIL", "onnx", "onnxruntime", "pynvml", "pandas")

# (module, top-level modules that must not come with it, how many times a bare `import asyncio` it may take)
BUDGETS = [
    ("mlserve.cli", (*ALWAYS_LAZY, *SERVER_ONLY, "rich", "yaml", "mlserve.server", "mlserve.engine"), 4.0),
    ("mlserve.worker.main", (*ALWAYS_LAZY, *SERVER_ONLY, "rich", "typer", "mlserve.core.service"), 3.0),
    ("mlserve.handler", (*ALWAYS_LAZY, *SERVER_ONLY, "rich", "msgspec", "asyncio"), 1.5),
]

# What must not come with a module, whatever the time: a server keeps it in memory, or a first worker waits for it.
LIGHT = [
    ("mlserve.server", (*ALWAYS_LAZY, "typer", "click", "rich", "pydantic", "pydantic_core", "grpc")),
    ("mlserve.rpc.doors", (*ALWAYS_LAZY, "typer", "click", "rich", "pydantic", "pydantic_core", "grpc")),
    (
        "mlserve.engine.local.bare",
        (*ALWAYS_LAZY, *SERVER_ONLY, "asyncio", "dataclasses", "logging", "mlserve.settings"),
    ),
    ("mlserve.engine.local.early", (*ALWAYS_LAZY, *SERVER_ONLY, "asyncio", "msgspec", "psutil", "email", "typer")),
]


def run_python(code: str) -> str:
    # -I: neither the folder nor PYTHON* variables of whoever runs the tests change what is measured.
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seconds(code: str) -> float:
    started = time.perf_counter()
    run_python(code)
    return time.perf_counter() - started


@pytest.mark.parametrize(("module", "banned"), [*LIGHT, *((module, banned) for module, banned, _ in BUDGETS)])
def test_import_brings_nothing_heavy(module: str, banned: tuple[str, ...]) -> None:
    loaded = set(json.loads(run_python(f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))")))
    assert module in loaded
    assert not loaded & set(banned)


def test_the_server_does_not_load_grpcs_library() -> None:
    """22 MiB and seven threads; it speaks gRPC itself, and the library is for clients."""
    assert run_python("import sys, mlserve.server, mlserve.rpc.doors; print('grpc' in sys.modules)").strip() == "False"


@pytest.mark.parametrize(("module", "budget"), [(module, budget) for module, _, budget in BUDGETS])
def test_import_stays_within_its_time_budget(module: str, budget: float) -> None:
    base, ours = [], []
    for _ in range(5):
        base.append(seconds("import asyncio"))
        ours.append(seconds(f"import {module}"))
    ratio = min(ours) / min(base)
    assert ratio <= budget, f"import {module}: {min(ours):.3f} s, {ratio:.1f} times a bare asyncio (at most {budget})"
