"""``ts.torch_handler.unit_tests.test_utils.model_dir``: putting the files of a model together for a test."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

__all__ = ["copy_files", "download_model"]

CACHE = Path(".cache")


def download_model(model_url: str, model_dir: Path) -> None:
    """Put the file at ``model_url`` into ``model_dir`` as ``model.pt``; it is fetched once and kept in ``.cache``."""
    parts = urlparse(model_url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"{model_url}: expected a URL that starts with http, https or file")
    CACHE.mkdir(exist_ok=True)
    kept = CACHE / Path(parts.path).name
    if not kept.exists():
        partial = kept.with_name(kept.name + ".part")
        with urllib.request.urlopen(model_url) as source, partial.open("wb") as target:  # noqa: S310  checked above
            shutil.copyfileobj(source, target)
        partial.rename(kept)
    shutil.copy(kept, model_dir / "model.pt")


def copy_files(src_dir: Path, dst_dir: Path, files: Mapping[str, str]) -> None:
    """Copy ``files``, name in ``src_dir`` -> name in ``dst_dir``."""
    for source, target in files.items():
        shutil.copyfile(src_dir / source, dst_dir / target)
