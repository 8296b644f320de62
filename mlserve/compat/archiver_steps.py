"""What the helper classes of both archivers have in common, for scripts that call them one by one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

from mlserve.archive.plan import SKIPPED_DIRS
from mlserve.archive.writing import Content

_SKIPPED_ENDS = (".pyc", ".DS_Store", ".mar", ".war")


class ArchiverSteps:
    """Static helpers that ``ModelExportUtils`` and ``WorkflowExportUtils`` share."""

    @staticmethod
    def make_dir(d: str | os.PathLike[str]) -> None:
        """Make a directory and those above it, if it is not there."""
        os.makedirs(d, exist_ok=True)

    @staticmethod
    def clean_temp_files(temp_files: Iterable[str | os.PathLike[str]]) -> None:
        """Remove files. Raises ``OSError`` for one that is not there."""
        for path in temp_files:
            os.remove(path)

    @staticmethod
    def directory_filter(directory: str, unwanted_dirs: Collection[str]) -> bool:
        """Whether a directory of this name is packed: not one of ``unwanted_dirs``, and not hidden."""
        return directory not in unwanted_dirs and not directory.startswith(".")

    @staticmethod
    def file_filter(current_file: str, files_to_exclude: Collection[str]) -> bool:
        """Whether a file is neither listed, nor a manifest, nor something that only its own machine needs."""
        return current_file not in {*files_to_exclude, "MANIFEST.json"} and not current_file.endswith(_SKIPPED_ENDS)


def staged(root: Path, manifest_path: str, manifest: str) -> list[Content]:
    """The manifest and every file below ``root`` that belongs into an archive, in the order of their names."""
    text = manifest.encode()
    contents = [Content(manifest_path, len(text), lambda: iter([text]))]
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if ArchiverSteps.directory_filter(name, SKIPPED_DIRS))
        for path in (Path(folder, name) for name in sorted(files)):
            contents.append(Content(path.relative_to(root).as_posix(), path.stat().st_size, partial(_pieces, path)))
    return contents


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
