"""setup.py's flags: those that the compiler refuses are left out, and the build goes on. No compiler runs here."""

import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ["-O2", "-fvisibility=hidden"]  # what mypyc asks for by itself


class CompileError(Exception):
    """What setuptools raises when the compiler ends with an error."""


class Compiler:
    """Refuses some flags; ``asked`` is what it was run with."""

    def __init__(self, refused: set[str]) -> None:
        self.refused = refused
        self.asked: list[list[str]] = []

    def compile(self, sources: list[str], *, output_dir: str, extra_postargs: list[str]) -> None:
        assert all(Path(source).read_text(encoding="utf-8") for source in sources)
        self.asked.append(extra_postargs)
        if self.refused & {*extra_postargs}:
            raise CompileError(f"command '/usr/bin/cc' failed: {sources}")


@pytest.fixture
def setup_py(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py defines, with stand-ins for setuptools, which need not be installed where tests run."""

    class Command:
        built = False

        def build_extensions(self) -> None:
            self.built = True

    class Stand(types.ModuleType):
        Extension = build_ext = build_py = Command
        setup = staticmethod(lambda **_: None)

    Stand.CompileError = CompileError  # type: ignore[attr-defined]
    for name in ("", ".command", ".command.build_ext", ".command.build_py", ".errors"):
        monkeypatch.setitem(sys.modules, f"setuptools{name}", Stand(f"setuptools{name}"))
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize("refused", [set(), {"-fno-plt"}, {"-fvisibility=hidden", "-fno-plt"}], ids=len)
def test_flags_that_the_compiler_refuses_are_left_out_and_the_build_goes_on(
    setup_py: dict[str, Any], refused: set[str]
) -> None:
    command = setup_py["Compile"]()
    command.compiler = Compiler(refused)
    command.extensions = [types.SimpleNamespace(extra_compile_args=["-O2"]) for _ in range(2)]
    command.build_extensions()
    known = [flag for flag in setup_py["WISHED"] if flag not in refused]
    assert [one.extra_compile_args for one in command.extensions] == [["-O2", *known]] * 2
    assert command.built
    assert all("-Werror" in asked for asked in command.compiler.asked), "some compilers only warn of what they ignore"


def test_a_flag_is_given_once_where_mypyc_has_it_too(setup_py: dict[str, Any]) -> None:
    command = setup_py["Compile"]()
    command.compiler = Compiler(set())
    command.extensions = [types.SimpleNamespace(extra_compile_args=[*OWN])]
    command.build_extensions()
    assert sorted(command.extensions[0].extra_compile_args) == sorted({*OWN, *setup_py["WISHED"]})
