import signal
import sys
from pathlib import Path

import pytest

import mlserve
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.engine.local.environment import SECRETS
from mlserve.engine.local.exits import REASONS, explain, oom_kill_count
from mlserve.engine.local.launch import LoadOptions, load_message, worker_command, worker_env
from mlserve.settings import all_options
from mlserve.wire.payload import EXIT_DEVICE_LOST, EXIT_PROTOCOL_ERROR
from mlserve.worker.loop import Stop


def _spec(**settings):
    return ModelSpec(ModelKey("m", "1"), "/models/m", "h", **settings)


def test_a_model_file_cannot_hide_what_the_worker_imports_before_it_loads_the_model():
    env = worker_env(_spec(), (), 4, 2, {"PYTHONPATH": "/mine:/other"})
    assert env["PYTHONPATH"].split(":")[:2] == ["/mine", "/other"]
    assert "/models/m" not in env["PYTHONPATH"]


def test_models_are_not_given_the_servers_passwords():
    secrets = dict.fromkeys((name for item in all_options() for name in item.secret_variables), "x")
    assert secrets.keys() == SECRETS  # named twice: a first worker is started before the settings are imported
    env = worker_env(_spec(), (), 4, 2, {**secrets, "OTHER": "kept"})
    assert env["OTHER"] == "kept"
    assert not secrets.keys() & env.keys()


def test_another_interpreter_is_given_this_package_but_never_our_site_packages():
    path = worker_env(_spec(python="/venv/bin/python"), (), 4, 2, {}).get("PYTHONPATH", "")
    ours = str(Path(mlserve.__file__).resolve().parent.parent)
    assert path in ("", ours)
    assert "site-packages" not in path


@pytest.mark.parametrize(
    ("cpus", "workers", "threads"), [(8, 2, "4"), (8, 3, "2"), (0.5, 1, "1"), (2, 5, "1"), (4, 0, "4")]
)
def test_cpus_are_shared_out_between_the_workers(cpus, workers, threads):
    env = worker_env(_spec(), (), cpus, workers, {})
    assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == threads


def test_threads_of_a_handler_share_what_their_worker_has():
    for spec, threads in ((_spec(handler_threads=2), "2"), (_spec(handler_threads=3, threads_per_worker=2), "1")):
        assert worker_env(spec, (), 8, 2, {})["OMP_NUM_THREADS"] == threads


def test_the_users_thread_count_is_kept_unless_the_model_sets_its_own():
    assert worker_env(_spec(), (), 8, 1, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in worker_env(_spec(), (), 8, 1, {"OMP_NUM_THREADS": "3"})
    assert worker_env(_spec(threads_per_worker=5), (), 8, 1, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "5"


def test_a_pin_replaces_the_servers_own_visible_devices():
    assert worker_env(_spec(), (3,), 1, 1, {"CUDA_VISIBLE_DEVICES": "1,3"})["CUDA_VISIBLE_DEVICES"] == "3"
    assert worker_env(_spec(), (), 1, 1, {"CUDA_VISIBLE_DEVICES": "1,3"})["CUDA_VISIBLE_DEVICES"] == ""


def test_a_pinned_handler_is_told_zero_and_an_unpinned_one_nothing():
    assert load_message(_spec(), (7,), LoadOptions()).gpu_id == 0
    assert load_message(_spec(), (), LoadOptions()).gpu_id is None


def test_the_models_interpreter_is_used():
    assert worker_command(_spec(python="/venv/bin/python")) == ["/venv/bin/python", "-m", "mlserve.worker"]
    assert worker_command(_spec())[0] == sys.executable


@pytest.mark.parametrize(
    ("code", "slug", "words"),
    [
        (0, "exit", "ended by itself"),
        (1, "exit", "exited with code 1"),
        (3, "exit", "exited with code 3"),
        (4, "exit", "exited with code 4"),
        (5, "exit", "exited with code 5"),
        (-signal.SIGSEGV, "signal", "SIGSEGV"),
        (-64, "signal", "SIGRTMAX"),
        (-63, "signal", "signal 63"),
    ],
)
def test_exit_statuses_are_told_apart(code, slug, words):
    ending = explain(code)
    assert ending.slug == slug
    assert words in ending.text
    assert slug in REASONS


def test_a_code_of_the_workers_own_says_what_it_means_only_where_the_worker_says_it():
    assert explain(3, loading=True) == ("load_failed", "could not load the model (exit code 3)", "")
    for code, words in ((EXIT_PROTOCOL_ERROR, "frame"), (EXIT_DEVICE_LOST, "device failed")):
        reason = str(Stop(code, "why"))
        assert words in explain(code, lines=["before", reason, "after"]).text
        assert explain(9 - code, lines=[reason]).slug == "exit", "the other one's words"
        assert explain(code, loading=True).slug == "exit"


@pytest.mark.parametrize("code", [-9, 137])
def test_sigkill_is_blamed_on_memory_only_where_the_kernel_says_so_or_says_nothing(code):
    assert explain(code).text == "was killed by SIGKILL (probably out of memory)"
    assert explain(code, oom_kills=1) == ("out_of_memory", "was killed by the kernel: out of memory", "")
    assert "not by the kernel" in explain(code, oom_kills=0).text


def test_the_kernels_out_of_memory_counter_is_read_wherever_it_is(tmp_path):
    none = tmp_path / "none"
    (tmp_path / "self").write_text("0::/app\n")
    (tmp_path / "app").mkdir()
    assert oom_kill_count(tmp_path, tmp_path / "self", none) is None
    (tmp_path / "app" / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n")
    assert oom_kill_count(tmp_path, tmp_path / "self", none) == 2
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 40\n")
    assert oom_kill_count(tmp_path, tmp_path / "self", tmp_path / "vmstat") == 42


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_that_wait_do_not_starve_those_that_compute_unless_the_user_says_so(given, spins):
    assert worker_env(_spec(), (), 4, 2, given).get("GOMP_SPINCOUNT") == spins
    assert worker_env(_spec(), (), 4, 2, given)["OPENBLAS_THREAD_TIMEOUT"] == "20"
    user = {**given, "OPENBLAS_THREAD_TIMEOUT": "26"}
    assert worker_env(_spec(), (), 4, 2, user)["OPENBLAS_THREAD_TIMEOUT"] == "26"


def test_a_batchs_memory_is_not_given_back_to_be_zeroed_for_the_next_unless_the_user_says_so():
    assert worker_env(_spec(), (), 4, 2, {})["MALLOC_TRIM_THRESHOLD_"] == str(1 << 30)
    assert worker_env(_spec(), (), 4, 2, {"MALLOC_TRIM_THRESHOLD_": "131072"})["MALLOC_TRIM_THRESHOLD_"] == "131072"


def test_onnxruntime_reports_to_nobody_unless_the_user_says_so():
    assert worker_env(_spec(), (), 4, 2, {})["ORT_DISABLE_TELEMETRY"] == "1"
    assert worker_env(_spec(), (), 4, 2, {"ORT_DISABLE_TELEMETRY": "0"})["ORT_DISABLE_TELEMETRY"] == "0"
