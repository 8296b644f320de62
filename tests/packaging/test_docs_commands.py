"""What the documentation tells people to type is there: scripts, benchmarks, verbs of ``mlserve``, and their flags."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from mlserve.cli.app import build_app

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "scripts/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^ {4}((?:scripts/|mlserve ).*)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
FLAG = re.compile(r"--?[a-zA-Z]")


def commands(text: str) -> set[str]:
    """What begins with a script or ``mlserve`` in code, without prompt and comment."""
    code = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    code += INDENTED.findall(text) + SPAN.findall(text)
    plain = [re.sub(r"^\$ +", "", re.split(r"(?:^| )#", line)[0].strip()) for line in code]
    return {line for line in plain if re.match(r"(?:mlserve|scripts/[\w-]+)(?: |$)", line)}


ALL = sorted({(path.relative_to(ROOT).as_posix(), one) for path in FILES for one in commands(path.read_text("utf-8"))})


def of(prefix: str) -> list[Any]:
    found = [pytest.param(line, id=f"{name}: {line}") for name, line in ALL if line.startswith(prefix)]
    assert len(found) > 10
    return found


def words(line: str) -> list[str]:
    """Up to a redirection, a pipe or the next command; a usage's brackets and choices are left out."""
    line = re.split(r" [|>&]|;", re.sub(r"\[[^]]*\]", "", line))[0]
    return shlex.split(line)


def flags(line: str) -> list[str]:
    """Those in brackets too."""
    return [word.split("=")[0].rstrip("],") for word in re.split(r"[ \[]", line) if FLAG.match(word)]


@pytest.mark.parametrize("line", of("scripts/"))
def test_script_and_benchmark_are_there_with_their_flags(line: str) -> None:
    script, *rest = words(line)
    assert (ROOT / script).is_file()
    if script != "scripts/bench" or not rest:
        return
    cases = re.findall(r"^  ([\w |]+)\) exec ", (ROOT / script).read_text(encoding="utf-8"), re.MULTILINE)
    assert rest[0] in {name for case in cases for name in case.split(" | ")}
    source = (ROOT / "benchmarks" / f"{rest[0]}.py").read_text(encoding="utf-8")
    assert not [flag for flag in flags(line) if f'"{flag}"' not in source]


@pytest.mark.parametrize("line", of("mlserve "))
def test_verb_of_mlserve_is_there_with_its_flags(line: str) -> None:
    command: Any = typer.main.get_command(build_app())
    rest, known = words(line)[1:], {"-h", "--help"}
    while True:
        known |= {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        if not hasattr(command, "commands") or not rest or rest[0].startswith("-") or rest[0].isupper():
            break
        context = typer.Context(command)
        _, command, rest = command.resolve_command(context, rest)
    assert not [flag for flag in flags(line.partition(" -- ")[0]) if flag not in known]
