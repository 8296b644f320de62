"""model-config.yaml, read as data and nothing else.

``safe_load`` makes no objects. What it does make is counted, because a kilobyte of aliases can stand for gigabytes
once something writes it out (the config goes to every worker).
"""

from __future__ import annotations

from typing import Any

from mlserve.errors import ArchiveError

DEFAULT_CONFIG_NAME = "model-config.yaml"
MAX_CONFIG_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 100


def parse_config(text: bytes, name: str) -> dict[str, Any]:
    """Read a model's configuration; an empty file is an empty one.

    Raises :class:`ArchiveError` for text that is no YAML mapping with text keys, or unfolds to too much.
    """
    if not text.strip():
        return {}
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ArchiveError(f"{name} is not valid YAML: {str(error) or type(error).__name__}") from None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ArchiveError(f"{name} must be a YAML mapping with text keys at the top")
    _check_size(value, name)
    return value


def _check_size(value: Any, name: str) -> None:
    """Count nodes as if aliases were written out; a structure that holds itself is as deep as can be."""
    count, stack = 0, [(value, 0)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise ArchiveError(f"{name} unfolds to more than {MAX_NODES} values or {MAX_DEPTH} levels")
        if isinstance(node, dict):
            stack.extend((child, depth + 1) for pair in node.items() for child in pair)
        elif isinstance(node, (list, tuple, set)):
            stack.extend((child, depth + 1) for child in node)
