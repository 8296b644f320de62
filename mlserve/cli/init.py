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


SHARED = {"model-config.yaml": "model-config.yaml.tmpl", "README.md": "README.md.tmpl", "pack.sh": "pack.sh.tmpl"}
OWN = {
    Kind.CUSTOM: {"handler.py": "custom_handler.py.tmpl", "test_handler.py": "custom_test_handler.py.tmpl"},
    Kind.IMAGE: {
        "handler.py": "image_handler.py.tmpl",
        "test_handler.py": "image_test_handler.py.tmpl",
        "model.py": "image_model.py.tmpl",
        "index_to_name.json": "image_index_to_name.json.tmpl",
    },
}
WORDS = {
    Kind.CUSTOM: {
        "archive_flags": "",
        "file_rows": "",
        "run_input": """-d '{"text": "how many words"}'""",
        "run_flags": """-d '{"text": "how many words"}'""",
    },
    Kind.IMAGE: {
        "archive_flags": "--model-file model.py --extra-files index_to_name.json ",
        "file_rows": "| `model.py` | the network; `--serialized-file weights.pth` in `pack.sh` brings its weights |\n"
        "| `index_to_name.json` | class index to label |\n",
        "run_input": "--input photo.jpg",
        "run_flags": "-T photo.jpg",
    },
}


def init(
    name: Annotated[str, typer.Argument(help="The model's name; also the name of the new folder.")],
    kind: Annotated[
        Kind, typer.Option(help="custom: any Python code; image: an image classifier in torch.")
    ] = Kind.CUSTOM,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Write into this folder instead of ./NAME.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.")] = False,
) -> None:
    """Start a new model: a handler with tests that pass, its configuration, and a script that packs it."""
    target = directory or Path(name)
    for path in scaffold(name, kind, target, force=force):
        typer.echo(f"wrote {path}")
    example = WORDS[kind]["run_input"]
    typer.echo(f"\nTry it:\n  cd {target}\n  pytest\n  mlserve run . {example}\n  ./pack.sh")


def scaffold(name: str, kind: Kind, target: Path, *, force: bool = False) -> list[Path]:
    """Write the files of ``kind`` into ``target`` and return their paths.

    Nothing is written if one of them exists and ``force`` is not set: raises ``FileExistsError`` that names it.
    Raises ``InvalidInput`` for a name that no model can have, ``NotADirectoryError`` if ``target`` is a file.
    """
    check_name(name)
    templates = {**OWN[kind], **SHARED}
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file, not a folder")
    existing = [str(target / file) for file in sorted(templates) if (target / file).exists()]
    if existing and not force:
        raise FileExistsError(f"{', '.join(existing)} exists already; --force overwrites")
    target.mkdir(parents=True, exist_ok=True)
    words = {**WORDS[kind], "name": name, "handler_section": _read(f"{kind.value}_config.yaml.tmpl").rstrip("\n")}
    for file, template in templates.items():
        (target / file).write_text(Template(_read(template)).substitute(words), encoding="utf-8")
    script = target / "pack.sh"
    script.chmod(script.stat().st_mode | 0o111)
    return [target / file for file in templates]


def _read(template: str) -> str:
    return files("mlserve.templates").joinpath(template).read_text(encoding="utf-8")
