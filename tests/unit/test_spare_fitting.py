"""Which workers a spare process may become, and what it imports for them."""

from pathlib import Path

import pytest

from mlserve.core.model import ModelKey, ModelSpec
from mlserve.engine.local.fitting import (
    late_changes,
    likely_packages,
    packages,
    recipe,
    shadowed,
    spare_environment,
)
from mlserve.engine.local.launch import LoadOptions, worker_env
from mlserve.engine.local.memory import available_memory, process_memory

SPEC = ModelSpec(ModelKey("m", "1"), "", "h")


def environment(gpu_ids: tuple[int, ...] = (), workers: int = 1, **environ: str) -> dict[str, str]:
    return worker_env(SPEC, gpu_ids, 8.0, workers, {"PATH": "/bin", **environ})


def test_spare_imports_what_only_some_models_need() -> None:
    image, text, rows = ["torch", "torch.nn", "PIL"], ["torch", "torch.nn", "torch.export"], ["numpy", "onnxruntime"]
    assert recipe([image, text, rows]) == ("torch", "torch.nn")
    assert recipe([rows]) == ("numpy", "onnxruntime")
    assert recipe([["numpy"], []]) == ()
    assert packages(["torch.nn", "mlserve.handlers.base"]) == {"torch"}


def test_threads_and_gpu_are_not_set_late() -> None:
    spare = spare_environment(environment(gpu_ids=(1,), workers=2), cpus=8.0)
    assert (spare["CUDA_VISIBLE_DEVICES"], spare["OMP_NUM_THREADS"], spare["OPENBLAS_NUM_THREADS"]) == ("", "8", "1")
    wanted = environment(gpu_ids=(3,), workers=4)
    changes = late_changes(spare, wanted)
    assert changes is not None
    assert {**spare, **{name: value for name, value in changes.items() if value is not None}} == wanted
    assert changes["CUDA_VISIBLE_DEVICES"] == "3"
    assert changes["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("other", [{"TORCH_LOGS": "all"}, {"PYTHONPATH": "/p"}, {"MKL_NUM_THREADS": "3"}])
def test_other_environment_is_taken_for_the_same(other: dict[str, str]) -> None:
    spare = spare_environment(environment(), cpus=8.0)
    assert late_changes(spare, environment(**other)) is None


def test_threads_that_the_user_chose_make_a_spare_unfit() -> None:
    own = environment(OMP_NUM_THREADS="3", MKL_NUM_THREADS="2")
    assert late_changes(spare_environment(own, cpus=8.0), own) == {}


def test_option_of_workers_is_no_part_of_the_environment() -> None:
    spare = spare_environment(environment(), cpus=8.0)
    assert late_changes(spare, worker_env(SPEC, (), 8.0, 1, {"PATH": "/bin"}, LoadOptions(ipex=True))) is None


@pytest.mark.parametrize(("file", "expected"), [("w.pt", {"torch", "numpy"}), ("m.onnx", set()), (None, set())])
def test_first_load_of_a_torch_model_finds_no_spare(file: str | None, expected: set[str]) -> None:
    spec = ModelSpec(ModelKey("m", "1"), "", "h", manifest={"model": {"serializedFile": file}} if file else {})
    assert likely_packages(spec) == expected


def test_model_with_its_own_numpy_gets_another(tmp_path: Path) -> None:
    (tmp_path / "handler.py").touch()
    assert not shadowed(str(tmp_path), ["numpy", "torch"])
    (tmp_path / "numpy").mkdir()
    assert shadowed(str(tmp_path), ["numpy", "torch"])
    assert shadowed(str(tmp_path / "gone"), [])


def test_limit_of_the_container_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(str(100 << 20))
    (tmp_path / "memory.current").write_text(str(60 << 20))
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {20 << 20}\n")
    membership = tmp_path / "membership"
    membership.write_text("0::/\n")
    assert available_memory(tmp_path, membership) == 60 << 20
    (tmp_path / "memory.max").write_text("max")
    assert available_memory(tmp_path, membership) > 60 << 20


def test_memory_of_a_process_that_is_gone_is_an_error() -> None:
    assert process_memory(2**22 + 1) == (0, 0)
