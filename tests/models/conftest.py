"""What the tests of model formats share: real data, and photos."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports it
os.environ.setdefault("TEST_STARTUP_TIMEOUT", "600")  # a dozen workers import torch at once, 10 s each on a free CPU


class Table(NamedTuple):
    """``load_breast_cancer``: 569 rows of 30 measurements, and whether the tumour was benign (1)."""

    rows: Any
    labels: Any
    names: list[str]


@pytest.fixture(scope="session")
def cancer() -> Table:
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    return Table(found.data, found.target, [str(name) for name in found.feature_names])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip fails: a missing package would make all of a format's tests silent."""
    return not_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same, for a file that skips as a whole."""
    return not_skipped((yield))


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def not_skipped(report: Report) -> Report:
    """``report``, as a failure if it says that something was skipped."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which no test here may be: scripts/test-models has everything ({report.longrepr})"
    return report
