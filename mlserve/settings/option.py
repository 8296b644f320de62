"""What is known about one setting besides its default: help text, names in every source, and its allowed range.

The tree of :mod:`mlserve.settings.tree` carries this as dataclass field metadata, so that flags, environment names,
``config.properties`` keys, error messages and the reference page all come from the place where the field is declared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")
_KEY = "mlserve.option"
HIDDEN = "******"


@dataclass(frozen=True)
class Option:
    """One setting. ``low`` and ``high`` are inclusive; ``unit`` is for the reader (``s``, ``ms``, ``bytes``)."""

    section: str
    name: str
    kind: str  # text, int, float, bool, size, texts, regex, regexes, gpu_ids, ints
    default: Any
    help: str
    flag: str = ""
    torchserve: str = ""  # the key in a config.properties that sets this field alone
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    secret: bool = False  # shown as HIDDEN; a file that holds it is for its owner only

    @property
    def key(self) -> str:
        """``section.name``, as in messages and in ``Settings.sources``."""
        return f"{self.section}.{self.name}"

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """The environment variables that hold a secret, and that are no business of models."""
        return (self.env, f"TS_{self.torchserve}".upper()) if self.secret else ()

    def shown(self, value: Any) -> Any:
        """``value`` as people and their logs may see it; a default is no secret."""
        return HIDDEN if self.secret and value not in ("", self.default) else value

    @property
    def env(self) -> str:
        """The environment variable, or "" for the per-model table, which only files can fill."""
        return "" if self.section == "model" else f"MLSERVE_{self.section}_{self.name}".upper()


def option(default: T, help: str, **known: Any) -> T:
    """A dataclass field with its :class:`Option` metadata; typed as its default so that mypy sees a plain attribute."""
    return field(default=default, metadata={_KEY: {"help": help, **known}})


def options(section: str, cls: type) -> Iterator[Option]:
    """The options that the dataclass ``cls`` declares, in order."""
    for item in fields(cls):
        known = dict(item.metadata.get(_KEY, {}))
        kind = known.pop("kind", "") or _kind_of(item)
        yield Option(section=section, name=item.name, kind=kind, default=item.default, **known)


def _kind_of(item: Field[Any]) -> str:
    assert item.default is not MISSING, f"{item.name} has no default"
    kinds = {bool: "bool", int: "int", float: "float", str: "text", tuple: "texts"}
    return kinds[type(item.default)]
