"""What a model's requirements file asks for, as far as its own text and the files beside it can say.

Two models need the same if their requirements say the same, and if the files in the archive that they name, and the
wheels there, are the same: then one environment serves both.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from mlserve.errors import InvalidInput

_EDITABLE = re.compile(r"\s*(-e|--editable)\b")
_INDEX = re.compile(r"(-i|--index-url|--extra-index-url)\b")
_INCLUDES = re.compile(r"(?:-[rc]|--requirement\b|--constraint\b)[\s=]*(.*)")
_MADE = re.compile(r"(^|/)(build|__pycache__|[^/]*\.egg-info)(/|$)")  # by building a project, in its own folder
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Needs:
    """The requirements file ``file`` of the model in ``directory``; ``named`` is False for a model that has none.

    ``digest`` is of its text and of all that it refers to in the directory. ``origin`` is of what else than names and
    versions decides over the packages: files in the directory, hashes, and options such as another index; "" where
    there is nothing of it. ``hashed``: every package is pinned with its hash. ``remote`` are the lines that name a
    place elsewhere, besides indexes.
    """

    directory: Path
    file: Path
    digest: str
    origin: str
    wheel_folders: tuple[Path, ...]
    hashed: bool
    named: bool
    remote: tuple[str, ...] = ()


def read_needs(directory: Path, name: str) -> Needs:
    """Read the requirements file ``name`` ("" for none). Raises :class:`InvalidInput` for what cannot be shared."""
    file = directory / name
    texts: dict[Path, str] = {}
    local: set[Path] = set()
    if name:
        _scan(file, directory, texts, local)
    folders = wheel_folders(directory) if name else ()
    local.update(wheel for place in folders for wheel in place.glob("*.whl"))
    lines = [line for text in texts.values() for line in text.splitlines()]
    hashed = any("--hash" in line for line in lines)
    options = lines if hashed else [line for line in lines if line.startswith("-") and not _INCLUDES.match(line)]
    origin = _digest_of(sorted(local), options) if local or options else ""
    digest = hashlib.sha256("\0".join([origin, *texts.values()]).encode()).hexdigest()
    remote = tuple(line for line in lines if re.search(r"(?<!file)://", line) and not _INDEX.match(line))
    return Needs(directory, file, digest, origin, folders, hashed, bool(name), remote)


def wheel_folders(directory: Path) -> tuple[Path, ...]:
    """Where in the archive wheels lie: in its root, where ``--extra-files`` puts a folder's files, or in wheels/."""
    return tuple(place for place in (directory, directory / "wheels") if any(place.glob("*.whl")))


def _scan(file: Path, directory: Path, texts: dict[Path, str], local: set[Path]) -> None:
    """Read ``file`` and the requirements files that it includes, and collect the other files that they name."""
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    texts[file] = "\n".join(line for line in lines if line)
    for line in lines:
        if _EDITABLE.match(line):
            raise InvalidInput(f"{file.name}: {line!r} is tied to one directory: name the package without --editable")
        plain = line.replace("file:", "")
        include = _INCLUDES.match(plain)
        # pip and uv look for an included file beside the one that includes it, for all else where they run.
        words = [include[1].strip("\"'")] if include else re.split(r"[\s=;@,]+", plain)
        for word in words:
            path = _inside(word, file.parent if include else directory, directory)
            if path is None or path in texts:
                continue
            if path.is_file() and (include or path.suffix in (".txt", ".in")):
                _scan(path, directory, texts, local)
            else:
                local.update(_files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [one for one in path.rglob("*") if one.is_file() and not _MADE.search(str(one.relative_to(path)))]


def _inside(word: str, base: Path, directory: Path) -> Path | None:
    """The file or folder of the model in ``directory`` that ``word`` names, seen from ``base``."""
    word = word.partition("[")[0]
    if not word.strip("./") or word.startswith("-"):
        return None
    try:
        path = (base / word).resolve()
        return path if path.exists() and path.is_relative_to(directory.resolve()) else None
    except (OSError, ValueError):
        return None


def _digest_of(files: list[Path], options: list[str]) -> str:
    found = hashlib.sha256("\n".join(options).encode())
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        found.update(f"\0{path.name}\0{digest.hexdigest()}".encode())
    return found.hexdigest()
