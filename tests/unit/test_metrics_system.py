"""The machine under TorchServe's names, and what a command of the user's own prints about it."""

import asyncio
from dataclasses import replace

import pytest

from mlserve.gpus import GpuReading
from mlserve.protocols.metrics_config import read_metrics_config
from mlserve.protocols.ts_metrics import TorchServeMetrics
from mlserve.rest.machine import Machine
from mlserve.rest.system import Measured, SystemMetrics, parse_lines, torchserve_readings


def test_units_are_not_megabytes_gigabytes_and_percent():
    gpu = GpuReading(3, "A", utilization=0.5, memory_utilization=0.25, memory_used=64 << 20, memory_total=1 << 30)
    machine = replace(
        Machine().read(),
        cpu_utilization=0.123,
        memory_used=3 << 20,
        memory_available=5 << 20,
        memory_percent=12.5,
        disk_used=7 << 30,
        disk_free=9 << 30,
        disk_percent=40.1,
        gpus=(gpu,),
    )
    host = ("Host", "h")
    assert torchserve_readings(machine, "h") == {
        "CPUUtilization": [(host, 12.3)],
        "MemoryUsed": [(host, 3.0)],
        "MemoryAvailable": [(host, 5.0)],
        "MemoryUtilization": [(host, 12.5)],
        "DiskUsage": [(host, 7.0)],
        "DiskAvailable": [(host, 9.0)],
        "DiskUtilization": [(host, 40.1)],
        "GPUUtilization": [(("Host", "3", "h"), 50.0)],
        "GPUMemoryUtilization": [(("Host", "3", "h"), 25.0)],
        "GPUMemoryUsed": [(("Host", "3", "h"), 64.0)],
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("HandlerTime.Milliseconds:71.77|#ModelName:mnist,Level:Model|#hostname:test-host,1699061430,6d17",
         Measured("HandlerTime", ("mnist", "Model", "test-host"), 71.77)),
        ("PredictionTime.Milliseconds:71.95|#ModelName:mnist,Level:Model|#type:GAUGE|#hostname:test-host,1699061430,6d",
         Measured("PredictionTime", ("mnist", "Model", "test-host"), 71.95)),
        ("CPUUtilization.Percent:0.0|#Level:Host|#hostname:h,1", Measured("CPUUtilization", ("Host", "h"), 0.0)),
        ("GPU.MB:1e-3|#Level:Host,device_id:0|#hostname:h,1", Measured("GPU", ("Host", "0", "h"), 0.001)),
    ],
)  # fmt: skip
def test_line_of_a_collector_is_not_understood(line, expected):
    assert list(parse_lines([line])) == [expected]


def test_line_that_is_none_hides_those_behind_it(caplog):
    lines = ["Loading ...", "A.B:1,2|#L:H|#hostname:h,1", "A.B:2|#L:H|#hostname:h,1", "", "A.B:3|#L:H|#hostname:h,1"]
    assert [one.value for one in parse_lines(lines)] == [2.0]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "Loading ..." in caplog.text


def run_once(command="", **options):
    """What one measurement wrote; the next would come in an hour."""
    lines = []
    metrics = TorchServeMetrics(
        read_metrics_config(), mode="log", hostname="h", write=lambda text, of_model: lines.append(text)
    )

    async def written():
        while not lines:
            await asyncio.sleep(0.01)

    async def main():
        task = asyncio.create_task(SystemMetrics(metrics, 3600.0, command, **options).run())
        await asyncio.wait_for(written(), 20)
        task.cancel()

    asyncio.run(main())
    return lines


def test_log_mode_writes_no_line_of_the_machine():
    names = [line.partition(".")[0] for line in run_once()]
    assert names == [
        "CPUUtilization", "MemoryUsed", "MemoryAvailable", "MemoryUtilization",
        "DiskUsage", "DiskAvailable", "DiskUtilization",
    ]  # fmt: skip


def test_command_is_not_run_with_this_python_or_not_told_the_workers(tmp_path):
    script = tmp_path / "my collector.py"
    script.write_text(
        "import sys\n"
        "pids = sys.stdin.readline().strip()\n"
        "print(f'CPUUtilization.Percent:{len(pids.split(\",\"))}|#Level:{sys.argv[1]}|#hostname:other,1')\n"
        "print('Unknown.Count:1|#Level:Host|#hostname:other,1')\n"
        "print()\n"
        "print('1:2')\n"
    )
    [line] = run_once(f"'{script}' Host", pids=lambda: [1, 2, 3])
    assert line.startswith("CPUUtilization.Percent:3.0|#Level:Host|#hostname:other,timestamp:")
