"""Handlers of TorchServe's users import ``ts``; tests of that leave nothing of it behind."""

import sys

import pytest


@pytest.fixture
def ts_names():
    """``import ts`` works in the test."""
    from mlserve.compat.finder import install

    finders, path, modules = list(sys.meta_path), list(sys.path), set(sys.modules)
    install()
    yield
    sys.meta_path[:] = finders
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "ts"] + [
        name for name in set(sys.modules) - modules if not name.startswith(("mlserve", "torch", "numpy", "PIL"))
    ]:
        sys.modules.pop(name, None)
