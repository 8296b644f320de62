"""The check that no test leaves a process behind, and what every test is to find."""

import signal
from collections.abc import Iterator

import psutil
import pytest

from mlserve.gpus import gpu_uuids


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of single folders, which pytest takes from here only."""
    parser.addoption(
        "--against",
        choices=("mlserve", "torchserve"),
        default="mlserve",
        help="what tests/compat runs against: torchserve is the real one, if it is on PATH",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with the mark ``gpu`` run where a GPU is, and say why they don't elsewhere."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not gpu_uuids():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU, and NVML (the extra gpu) finds none here"))


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """What the tests start would ignore what they do: ``nohup`` and a script's ``&`` leave signals ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_process_left() -> Iterator[None]:
    """Fail the run if a child of the test process is still there at its end."""
    yield
    left = [
        process for process in psutil.Process().children(recursive=True) if process.status() != psutil.STATUS_ZOMBIE
    ]
    commands = [" ".join(process.cmdline()) for process in left if process.is_running()]
    for process in left:
        process.kill()
    assert not commands, f"tests left processes behind: {commands}"
