"""Class names for a model's output: ``index_to_name.json`` in the archive maps a class index to its name.

A value is a name, or a list whose last element is the name (``["n02123045", "tabby"]``, as in ImageNet's own files).
The file may also be called ``mapping.json``, as long as it maps class indices: others use that name for other things.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
FILE = "index_to_name.json"
OTHER = "mapping.json"


def labels_in(directory: Path) -> dict[str, Any] | None:
    """The class names of an archive, or None if it has none. Raises ``ValueError`` if ``FILE`` is no JSON object."""
    if (directory / FILE).is_file():
        return load_label_mapping(directory / FILE)
    try:
        mapping = load_label_mapping(directory / OTHER)
    except ValueError:
        mapping = {}
    if mapping is None or (mapping and all(key.isdecimal() for key in mapping)):
        return mapping
    logger.info("%s maps no class indices to names: it is left to the handler", OTHER)
    return None


def load_label_mapping(path: str | Path) -> dict[str, Any] | None:
    """The mapping in ``path``, or None if there is no such file. Raises ``ValueError`` if it is not a JSON object.

    A value that is a list stands for its last element. ``{"object_type_names": [...]}`` names the classes in order.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(mapping, dict):
        raise ValueError(f'{path}: expected a JSON object like {{"0": "cat"}}, found {type(mapping).__name__}')
    names = mapping.get("object_type_names")
    if isinstance(names, list):
        return {str(index): name for index, name in enumerate(names)}
    return {key: value[-1] if isinstance(value, list) and value else value for key, value in mapping.items()}


def name_of(index: int, mapping: Mapping[str, Any] | None) -> str:
    """The name of class ``index``; the index itself where the archive has no names."""
    if not mapping:
        return str(index)
    if str(index) not in mapping:
        raise KeyError(f"There are {len(mapping)} class names and none for class {index}: they are of another model")
    name = mapping[str(index)]
    return str(name[-1] if isinstance(name, list) else name)


def named(indices: Iterable[int], values: Iterable[float], mapping: Mapping[str, Any] | None) -> dict[str, float]:
    """``{name: value}`` in the given order.

    ImageNet has two classes called "crane": a name that is taken gets its index, so that no class is lost.
    """
    row: dict[str, float] = {}
    for index, value in zip(indices, values, strict=True):
        name = name_of(index, mapping)
        row[f"{name} ({index})" if name in row else name] = value
    return row
