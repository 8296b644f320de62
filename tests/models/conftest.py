"""What the tests of model formats share: real data, and photos."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports it


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
