import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.model import ModelKey, ModelSpec
from mlserve.engine.local.devices import DeviceAllocator, available_cpus, discover_gpus, visible_gpus

UUIDS = ["GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3"]


def _spec(name="m", **settings):
    return ModelSpec(ModelKey(name, "1"), "/", "h", **settings)


def test_gpus_are_dealt_in_turn_over_all_models():
    allocator = DeviceAllocator([4, 6, 7])
    one, two = allocator.for_model(_spec("one")), allocator.for_model(_spec("two"))
    assert [one.next(), two.next(), one.next(), one.next(), two.next()] == [(4,), (6,), (7,), (4,), (6,)]


def test_a_models_own_ids_are_its_only_ones_and_disturb_nobody():
    allocator = DeviceAllocator([0, 1, 2])
    picky, other = allocator.for_model(_spec(device_ids=(2, 1))), allocator.for_model(_spec("other"))
    assert [picky.next(), picky.next(), picky.next()] == [(2,), (1,), (2,)]
    assert other.next() == (0,)


@given(st.lists(st.integers(0, 7), unique=True, min_size=1), st.integers(1, 60))
def test_no_gpu_gets_two_workers_more_than_another(ids, workers):
    devices = DeviceAllocator(ids).for_model(_spec())
    given_out = [devices.next()[0] for _ in range(workers)]
    counts = [given_out.count(gpu) for gpu in ids]
    assert sum(counts) == workers
    assert max(counts) - min(counts) <= 1


def test_one_unknown_id_drops_the_models_whole_list_with_a_warning(caplog):
    devices = DeviceAllocator([0, 1]).for_model(_spec(device_ids=(1, 5)))
    assert [devices.next(), devices.next()] == [(0,), (1,)]
    assert "no GPU 5 (it has 0, 1)" in caplog.text


def test_workers_of_several_processes_share_no_gpu_before_all_are_taken():
    devices = DeviceAllocator([0, 1, 2, 3]).for_model(_spec())
    assert [devices.next(2), devices.next(2), devices.next(2)] == [(0, 1), (2, 3), (0, 1)]
    own = DeviceAllocator([0, 1, 2, 3]).for_model(_spec(device_ids=(3, 1)))
    assert own.next(2) == (3, 1)
    assert own.next(4) == (3, 1), "there are no four of them"
    assert (devices.most(2), own.most(2), devices.most(1)) == (2, 1, None)
    assert DeviceAllocator([]).for_model(_spec()).most(4) is None


def test_cpu_models_never_get_a_gpu():
    assert DeviceAllocator([0, 1]).for_model(_spec(device_type="cpu", device_ids=(1,))).next() == ()


def test_asking_for_a_gpu_where_there_is_none_is_not_silent(caplog):
    assert DeviceAllocator([]).for_model(_spec(device_type="gpu")).next() == ()
    assert "asks for a GPU, but this server has none" in caplog.text
    caplog.clear()
    assert DeviceAllocator([]).for_model(_spec()).next() == ()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("GPU-cccc", [2]),
        ("GPU-aa", []),  # two GPUs begin so
        ("0,9,1", [0]),
        ("0,0,1", [0]),
        ("MIG-1234", []),
    ],
)
def test_cuda_visible_devices_of_the_server_limits_what_it_hands_out(visible, ids):
    assert visible_gpus(UUIDS, visible) == ids


def test_looking_for_gpus_without_any_finds_none():
    assert discover_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def _tree(tmp_path, membership, files):
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "self").write_text(membership)
    return available_cpus(tmp_path / "cgroup", tmp_path / "self")


ALL = float(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, ALL),
        ("0::/a/b\n", {"a/cpu.max": "25000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.25),
        ("0::/on/the/host\n", {"cpu.max": "75000 100000\n"}, 0.75),
        (
            "4:cpu,cpuacct:/x\n3:memory:/\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "30000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            0.3,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, ALL),
        ("0::/\n", {"cpu.max": "what\n"}, ALL),
        ("nonsense\n", {}, ALL),
        ("0::/\n", {"cpu.max": "99900000 100000\n"}, ALL),
    ],
)
def test_a_cgroups_quota_counts_and_never_raises_the_number(tmp_path, membership, files, cpus):
    assert _tree(tmp_path, membership, files) == pytest.approx(cpus)


def test_without_cgroups_the_affinity_counts(tmp_path):
    assert available_cpus(tmp_path / "none", tmp_path / "none") == ALL
