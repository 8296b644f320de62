"""Which source file goes where in a new archive, decided before anything is written.

Named files (handler, model, weights, requirements, config) and extra files land in the root under their base name:
handlers look for them there. An extra *directory* puts its content in the root and keeps its sub-directories; a glob
with ``**`` keeps the tree below its fixed part. Two sources for one member are an error that names both.
"""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlserve.archive.manifest import BUILT_IN, BUILT_IN_LSP, MANIFEST_PATH, split_handler
from mlserve.archive.names import NameSet, check_member_name
from mlserve.errors import ArchiveError

log = logging.getLogger(__name__)

OTHER_NAMES = frozenset({"audio", "auto", "base", "embedding", "huggingface", "llm", "onnx", "tabular"})
"""Names of built-in handlers that TorchServe has not: a file of the user's comes before them."""

SKIPPED_DIRS = frozenset({"__MACOSX", "__pycache__"})  # and those whose name starts with a dot


def is_built_in(module: str) -> bool:
    """Whether the server brings a handler of this name; ``mlserve.handlers.NAME`` names one as well, where a file of
    the user's has the short name."""
    return module.removeprefix("mlserve.handlers.") in BUILT_IN | OTHER_NAMES


def locate_handler(handler: str, runtime: str = "python") -> tuple[str, Path | None]:
    """``--handler`` -> (text for the manifest, file to pack or ``None`` for a built-in handler).

    ``file``, ``file.py`` and either with ``:function`` are taken. A file beats a built-in handler of the same name,
    except for the names that torch-model-archiver reserves. Raises :class:`ArchiveError` if there is no such file.
    """
    path, function = split_handler(handler)
    suffix = f":{function}" if function else ""
    if runtime == "LSP":
        if handler in BUILT_IN_LSP:
            return handler, None
        file = Path(path if path.endswith(".so") else f"{path}.so")
    else:
        if path in BUILT_IN:
            return handler, None
        file = Path(path if path.endswith(".py") else f"{path}.py")
        if not file.is_file() and is_built_in(path):
            return handler, None
    if not file.is_file():
        raise ArchiveError(
            f"Handler file {str(file)!r} was not found, and {path!r} is none of the built-in handlers: "
            f"{', '.join(sorted(BUILT_IN | OTHER_NAMES))}"
        )
    return Path(path).name + suffix, file


class Plan:
    """Member name -> source file."""

    def __init__(self, manifest: str = MANIFEST_PATH, *, last_wins: bool = False) -> None:
        self.sources: dict[str, Path] = {}
        self.manifest = manifest  # its member name; its directory belongs to the archiver
        # Of two sources of one member, with a warning, instead of an error; names that differ in case are two.
        self._last_wins = last_wins
        self._names = NameSet(fold=not last_wins)
        self._names.add(manifest)

    def add(self, name: str, source: Path) -> None:
        """Add one file. Raises :class:`ArchiveError` for an unfit name or file, or a second source of one member."""
        name = check_member_name(name)
        taken = self.manifest.partition("/")[0]
        if name.partition("/")[0] == taken and self._last_wins:
            log.warning("%s is left out: %s/ is written by the archiver", source, taken)
            return
        if name.partition("/")[0].casefold() == taken.casefold():
            raise ArchiveError(f"{source} would be {name!r} in the archive, but {taken}/ is written by the archiver")
        known = self.sources.get(name)
        if known is not None:
            if os.path.samefile(known, source):
                return
            if self._last_wins and source.is_file():
                log.warning("%s takes the place of %s: both are %r in the archive", source, known, name)
                self.sources[name] = source
                return
            raise ArchiveError(f"{str(known)!r} and {str(source)!r} would both be {name!r} in the archive: rename one")
        try:
            if not stat.S_ISREG(source.stat().st_mode):
                raise ArchiveError(f"{source} is not a regular file")
        except OSError as error:
            raise ArchiveError(f"Cannot read {source}: {error.strerror or error}") from None
        try:
            self._names.add(name)
        except ArchiveError as error:
            raise ArchiveError(f"{source} cannot be {name!r} in the archive: {error.message}") from None
        self.sources[name] = source

    def add_named(self, option: str, path: str | os.PathLike[str]) -> str:
        """Add a file given by an option to the root; returns its member name."""
        source = Path(path)
        if not source.is_file():
            raise ArchiveError(f"{option}: file {str(source)!r} was not found")
        self.add(source.name, source)
        return source.name

    def add_extra(self, entry: str, skip: Path | None = None) -> None:
        """Add what an entry of ``--extra-files`` stands for: a file, a directory, or a glob. ``skip`` is left out."""
        literal = Path(entry)
        if literal.exists():
            self._add_path(literal, skip)
        elif glob.has_magic(entry):
            found = sorted(glob.glob(entry, recursive=True))
            if not found:
                log.warning("--extra-files: %r matches no file", entry)
            for match in found:
                self._add_match(entry, Path(match), skip)
        else:
            raise ArchiveError(f"--extra-files: file {entry!r} was not found")

    def _add_match(self, entry: str, match: Path, skip: Path | None) -> None:
        if "**" not in entry:
            self._add_path(match, skip)
        elif match.is_file() and match != skip:
            base = Path(*_fixed_parts(entry))
            relative = match.relative_to(base)
            if not any(_is_skipped(part) for part in relative.parts[:-1]):
                self.add(relative.as_posix(), match)

    def _add_path(self, path: Path, skip: Path | None) -> None:
        if not path.is_dir():
            self.add(path.name, path)
            return
        for name, source in _tree(path):
            if skip is None or source.absolute() != skip:
                self.add(name, source)


def extra_entries(extra_files: str | Iterable[str | os.PathLike[str]] | None) -> list[str]:
    """Comma-separated text or a list -> entries. Only text is split: a listed path may hold commas."""
    if extra_files is None:
        return []
    if isinstance(extra_files, str):
        return [entry for part in extra_files.split(",") if (entry := part.strip())]
    return [os.fspath(entry) for entry in extra_files]


def _fixed_parts(pattern: str) -> list[str]:
    parts = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _is_skipped(directory: str) -> bool:
    return directory in SKIPPED_DIRS or directory.startswith(".")


def _refuse(error: OSError) -> None:
    """``os.walk`` passes over directories that it cannot read; an archive must not."""
    raise ArchiveError(f"Cannot read {error.filename}: {error.strerror or error}")


def _tree(root: Path) -> Iterator[tuple[str, Path]]:
    """(path below ``root``, file) of every file, following links to directories but never in a circle."""
    on_the_way: dict[str, str] = {str(root): os.path.realpath(root)}
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        above = on_the_way.get(os.path.dirname(folder), "") if folder != str(root) else ""
        if above and (above == real or above.startswith(f"{real}{os.sep}")):
            raise ArchiveError(f"{folder} is a link to a directory above it")
        on_the_way[folder] = real
        folders[:] = sorted(name for name in folders if not _is_skipped(name))
        for file in sorted(files):
            source = Path(folder, file)
            yield source.relative_to(root).as_posix(), source
