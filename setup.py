"""What setuptools builds beyond pyproject.toml: the compiled build, for which mypyc makes C of the modules below, and
the note in a pure one that says why it is not compiled. build_backend.py decides which of the two it is to be.

Both are made of the same sources and behave alike (``scripts/test-compiled``). Only what every small request goes
through is worth compiling: docs/performance.md has what it gave.
"""

import functools
import os
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

# Handlers give values of any type, where compiled code raises TypeError for what is not as annotated: those are Any.
# What handlers see of the worker, and its other ways to work, are interpreted. And no class here may derive from an
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
    "mlserve/rest/routes.py",
    "mlserve/protocols/request_ids.py",
    # admission, batching, counters; a compiled class can only be derived from in compiled modules: all kinds of queue
    "mlserve/core/adaptive.py",
    "mlserve/core/buckets.py",
    "mlserve/core/itemwise.py",
    "mlserve/core/job.py",
    "mlserve/core/messages.py",
    "mlserve/core/metrics.py",
    "mlserve/core/pending.py",
    "mlserve/core/policies.py",
    "mlserve/core/policy.py",
    "mlserve/core/registry.py",
    "mlserve/core/sequences.py",
    "mlserve/core/service.py",
    "mlserve/core/waiting.py",
    # its line in the access log, in both forms
    "mlserve/log/access.py",
    "mlserve/log/torchserve_access.py",
    # batches to the worker and back, on the server's side; frames on both
    "mlserve/engine/local/batches.py",
    "mlserve/engine/local/link.py",
    "mlserve/wire/frames.py",
    # a batch in the worker: from its socket to the handler and back
    "mlserve/worker/attempt.py",
    "mlserve/worker/encode.py",
    "mlserve/worker/link.py",
    "mlserve/worker/loop.py",
    "mlserve/worker/replies.py",
    "mlserve/worker/results.py",
    "mlserve/worker/rows.py",
    "mlserve/worker/runner.py",
]
# Not the settings of [tool.mypy], which are for people: here only what the code means counts, and what is imported
# need not be installed while this is built.
FLAGS = ["--config-file=", "--ignore-missing-imports"]
# Calls within the library go straight to their function, and those to others by one jump less: 7 % of a small request.
# Where a compiler does not know one, it is left out.
WISHED = ["-fvisibility=hidden", "-fno-plt"]


@functools.cache
def compiled(folder: str) -> list[Extension]:
    """C made of the modules, in ``folder``, once, however often setuptools asks."""
    from mypyc.build import mypycify  # not above: the pure build does without

    extensions: list[Extension] = mypycify(
        # -O3 makes it larger and no quicker: caches
        [*FLAGS, *MODULES],
        group_name="mlserve.compiled",
        opt_level="2",
        debug_level="0",
        target_dir=folder,
    )
    for one in extensions:  # what a newer compiler warns of is no reason not to compile
        one.extra_compile_args = [flag for flag in one.extra_compile_args if flag != "-Werror"]
    return extensions


class Compile(build_ext):
    """Runs mypyc when the build has come so far, and not whenever pip asks about the package."""

    def finalize_options(self) -> None:
        """Put what is to be built in the placeholder's place; the compiler runs on all cores."""
        self.distribution.ext_modules = compiled(self.get_finalized_command("build").build_base)
        self.parallel = True
        super().finalize_options()

    def build_extensions(self) -> None:
        """Ask the compiler first which of the flags it knows."""
        known = [flag for flag in WISHED if self._knows(flag)]
        for extension in self.extensions:
            extension.extra_compile_args += [flag for flag in known if flag not in extension.extra_compile_args]
        super().build_extensions()

    def _knows(self, flag: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="mlserve-build-") as folder:
            source = Path(folder, "flag.c")
            source.write_text("int flag;\n", encoding="utf-8")
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=["-Werror", flag])
            except CompileError:
                return False
        return True


class Note(build_py):
    """The pure build also holds why it is not compiled: ``mlserve.build`` tells it."""

    def run(self) -> None:
        """Copy the modules, then write the note."""
        super().run()
        if reason := os.environ.get("MLSERVE_NOT_COMPILED", "setup.py was run without build_backend.py"):
            Path(self.build_lib, "mlserve", "not_compiled.txt").write_text(reason, encoding="utf-8")


# Nothing is left here: what is in a folder "build" goes into later builds, also when its source is gone, and two builds
# at once would write the same files. A source distribution is made of files here, with that of its metadata.
with tempfile.TemporaryDirectory(prefix="mlserve-build-") as place:
    options = {"build": {"build_base": place}}
    if "sdist" not in sys.argv:
        options["egg_info"] = {"egg_base": place}
    if os.environ.get("MLSERVE_COMPILE") == "1":
        extensions = [Extension("mlserve.compiled__mypyc", [])]
        setup(cmdclass={"build_ext": Compile}, ext_modules=extensions, options=options)
    else:
        setup(cmdclass={"build_py": Note}, options=options)
