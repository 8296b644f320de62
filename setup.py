"""The compiled build: ``MLSERVE_COMPILE=1 pip install .`` has mypyc compile the modules below. Without that variable
this file adds nothing to pyproject.toml, and the package is pure Python, which needs no compiler.

Both builds are made of the same sources and behave alike (``scripts/test-compiled``). Only what every small request
goes through is worth compiling: docs/performance.md has what it gave.
"""

import functools
import os

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The worker's modules are not among them: it gains nothing that can be measured, and handlers give it values of any
# type, where compiled code raises TypeError for what is not as annotated. And no class here may derive from an
# interpreted one that can be referred to weakly (logging.Handler, threading.Thread): mypyc 2.4 frees it and leaves the
# references, and the next collection crashes (tests/packaging/test_compiled_modules.py).
MODULES = [
    # a request and its answer on the client's connection
    "mlserve/rest/connection.py",
    "mlserve/rest/exchange.py",
    "mlserve/rest/fast.py",
    "mlserve/rest/http1.py",
    "mlserve/rest/lane.py",
    "mlserve/rest/request_head.py",
    "mlserve/protocols/request_ids.py",
    # admission, batching, counters; a compiled class can only be derived from in compiled modules: all kinds of queue
    "mlserve/core/adaptive.py",
    "mlserve/core/buckets.py",
    "mlserve/core/itemwise.py",
    "mlserve/core/job.py",
    "mlserve/core/metrics.py",
    "mlserve/core/pending.py",
    "mlserve/core/policies.py",
    "mlserve/core/policy.py",
    "mlserve/core/sequences.py",
    # its line in the access log, in both forms
    "mlserve/log/access.py",
    "mlserve/log/torchserve_access.py",
    # batches to the worker and back, on the server's side; frames on both
    "mlserve/engine/local/batches.py",
    "mlserve/engine/local/link.py",
    "mlserve/wire/frames.py",
]
# Not the settings of [tool.mypy], which are for people: here only what the code means counts, and what is imported
# need not be installed while this is built.
FLAGS = ["--config-file=", "--ignore-missing-imports"]


@functools.cache
def compiled() -> list[Extension]:
    """C made of the modules, once, however often setuptools asks."""
    from mypyc.build import mypycify  # not above: it is not there yet when pip asks what the build needs

    extensions: list[Extension] = mypycify([*FLAGS, *MODULES], group_name="mlserve.compiled", debug_level="0")
    return extensions


class Compile(build_ext):
    """Runs mypyc when the build has come so far, and not whenever pip asks about the package."""

    def finalize_options(self) -> None:
        """Put what is to be built in the placeholder's place."""
        self.distribution.ext_modules = compiled()
        super().finalize_options()


if os.environ.get("MLSERVE_COMPILE") == "1":
    setup(
        setup_requires=["mypy==2.4.1", "msgspec>=0.18.6"],  # mypy needs the arguments of msgspec's classes
        cmdclass={"build_ext": Compile},
        ext_modules=[Extension("mlserve.compiled__mypyc", [])],
    )
else:
    setup()
