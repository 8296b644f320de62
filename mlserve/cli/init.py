"""``mlserve init``: write a handler that works, its tests, its configuration and a script that packs it.

The files come from ``mlserve.templates``, filled in by ``string.Template``.
"""

from __future__ import annotations

from enum import Enum
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from mlserve.core.model import check_name


class Kind(str, Enum):
    """What is scaffolded."""

    CUSTOM = "custom"
    IMAGE = "image"
    TEXT = "text"
    TABULAR = "tabular"
    ONNX = "onnx"
    LLM = "llm"


SHARED = {"model-config.yaml": "model-config.yaml.tmpl", "README.md": "README.md.tmpl", "pack.sh": "pack.sh.tmpl"}
OWN = {
    Kind.CUSTOM: ("handler.py", "test_handler.py"),
    Kind.IMAGE: ("handler.py", "test_handler.py", "model.py", "index_to_name.json"),
    Kind.TEXT: ("handler.py", "test_handler.py", "model.py", "index_to_name.json"),
    Kind.TABULAR: ("make_model.py", "test_model.py"),
    Kind.ONNX: ("make_model.py", "test_model.py"),
    Kind.LLM: ("handler.py", "test_handler.py", "make_model.py"),
}
"""The files of a kind besides ``SHARED``; each comes from the template ``KIND_FILE.tmpl``."""

_HANDLER_ROW = "| `handler.py` | what happens between a request and its answer |\n"
_NETWORK_ROWS = (
    "| `model.py` | the network; `--serialized-file weights.pth` in `pack.sh` brings its weights |\n"
    "| `index_to_name.json` | class index to label |\n"
)
_DEFAULT_WORDS = {
    "about": "",
    "archive_flags": "",
    "file_rows": _HANDLER_ROW,
    "handler": "handler.py",
    "make_line": "",
    "run_note": ": `breakpoint()` works in the handler",
    "run_target": ".",
    "test_file": "test_handler.py",
}
WORDS = {
    Kind.CUSTOM: {
        "run_input": """-d '{"text": "how many words"}'""",
        "run_flags": """-d '{"text": "how many words"}'""",
    },
    Kind.IMAGE: {
        "archive_flags": "--model-file model.py --extra-files index_to_name.json ",
        "file_rows": _HANDLER_ROW + _NETWORK_ROWS,
        "run_input": "--input photo.jpg",
        "run_flags": "-T photo.jpg",
    },
    Kind.TEXT: {
        "archive_flags": "--model-file model.py --extra-files index_to_name.json ",
        "file_rows": _HANDLER_ROW + _NETWORK_ROWS,
        "run_input": """-d '{"text": "what a fine day"}'""",
        "run_flags": """-d '{"text": "what a fine day"}'""",
    },
    Kind.TABULAR: {
        "about": "\nA scikit-learn estimator, served by the handler `tabular`: `pip install 'mlserve[sklearn]'`.\n",
        "archive_flags": "--serialized-file model.skops ",
        "file_rows": "| `make_model.py` | trains the model and writes `model.skops` |\n",
        "handler": "tabular",
        "make_line": "python make_model.py\n",
        "run_input": """-d '{"age": 30, "income": 90000}'""",
        "run_flags": """-d '{"age": 30, "income": 90000}'""",
        "run_note": "",
        "run_target": "model.skops",
        "test_file": "test_model.py",
    },
    Kind.ONNX: {
        "about": "\nAn ONNX file, served by the handler `auto`: `pip install 'mlserve[onnx]'`.\n",
        "archive_flags": "--serialized-file model.onnx ",
        "file_rows": "| `make_model.py` | writes a sample `model.onnx`, until you bring your own |\n",
        "handler": "auto",
        "make_line": "[[ -e model.onnx ]] || python make_model.py\n",
        "run_input": """-d '{"x": [5.1, 3.5, 1.4, 0.2]}'""",
        "run_flags": """-d '{"x": [5.1, 3.5, 1.4, 0.2]}'""",
        "run_note": "",
        "run_target": "model.onnx",
        "test_file": "test_model.py",
    },
    Kind.LLM: {
        "about": "\nA language model of transformers, streamed by tokens: `pip install 'mlserve[transformers]'`.\n",
        "archive_flags": "--extra-files weights --archive-format zip-store ",
        "file_rows": _HANDLER_ROW
        + "| `make_model.py` | writes a tiny random model into `weights/`, until you bring yours |\n",
        "make_line": "[[ -e weights ]] || python make_model.py\n",
        "run_input": """-d '{"prompt": "the cat", "max_tokens": 20}'""",
        "run_flags": """-d '{"prompt": "the cat", "max_tokens": 20}'""",
    },
}
"""What the templates are filled with, where a kind differs from ``_DEFAULT_WORDS``."""


def init(
    name: Annotated[str, typer.Argument(help="The model's name; also the name of the new folder.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="custom: any Python code; image, text: a classifier in torch; tabular: a scikit-learn estimator; "
            "onnx: an ONNX file; llm: a language model whose answers are streamed."
        ),
    ] = Kind.CUSTOM,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Write into this folder instead of ./NAME.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.")] = False,
) -> None:
    """Start a new model: a handler (or a model file) with tests that pass, its configuration, and a script that packs
    it."""
    target = directory or Path(name)
    for path in scaffold(name, kind, target, force=force):
        typer.echo(f"wrote {path}")
    words = {**_DEFAULT_WORDS, **WORDS[kind]}
    typer.echo(
        f"\nTry it:\n  cd {target}\n  pytest\n  mlserve run {words['run_target']} {words['run_input']}\n  ./pack.sh"
    )


def scaffold(name: str, kind: Kind, target: Path, *, force: bool = False) -> list[Path]:
    """Write the files of ``kind`` into ``target`` and return their paths.

    Nothing is written if one of them exists and ``force`` is not set: raises ``FileExistsError`` that names it.
    Raises ``InvalidInput`` for a name that no model can have, ``NotADirectoryError`` if ``target`` is a file.
    """
    check_name(name)
    templates = {**{file: f"{kind.value}_{file}.tmpl" for file in OWN[kind]}, **SHARED}
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file, not a folder")
    existing = [str(target / file) for file in sorted(templates) if (target / file).exists()]
    if existing and not force:
        raise FileExistsError(f"{', '.join(existing)} exists already; --force overwrites")
    target.mkdir(parents=True, exist_ok=True)
    section = _read(f"{kind.value}_config.yaml.tmpl").rstrip("\n")
    words = {**_DEFAULT_WORDS, **WORDS[kind], "name": name, "handler_section": section}
    for file, template in templates.items():
        (target / file).write_text(Template(_read(template)).substitute(words), encoding="utf-8")
    script = target / "pack.sh"
    script.chmod(script.stat().st_mode | 0o111)
    return [target / file for file in templates]


def _read(template: str) -> str:
    return files("mlserve.templates").joinpath(template).read_text(encoding="utf-8")
