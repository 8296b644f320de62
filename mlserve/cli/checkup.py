"""What ``mlserve doctor`` finds out about a ``config.properties``: line by line what it sets here, or why it does not.

What lies in the stores is examined by :mod:`mlserve.cli.checkup_archives`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlserve.archive.download import is_url
from mlserve.settings import Settings, all_options
from mlserve.settings.torchserve import RECORDS, SWITCHES, TRANSLATED_FIELDS
from mlserve.settings.values import written

OK, CHANGED, MISSING, FAILED = "ok", "changed", "missing", "failed"


@dataclass(frozen=True)
class Finding:
    """One line. ``level`` is one of ok, changed, missing, failed; the last two are for the user to solve."""

    level: str
    about: str
    text: str
    detail: str = ""


def settings_findings(path: Path, entries: Sequence[tuple[str, str, int]], settings: Settings) -> Iterator[Finding]:
    """What each entry of the file comes to, then what other sources say."""
    notes: dict[str, list[str]] = {}
    for note in settings.notes:
        source, _, text = note.partition(": ")
        notes.setdefault(source, []).append(text)
    last = {key: line for key, _, line in entries}
    for key, value, line in entries:
        source = f"{path.name}:{line}"
        about = f"{source} {key}"
        remarks = notes.pop(source, [])
        if line != last[key]:
            yield Finding(CHANGED, about, f"does not count: line {last[key]} sets it again")
        else:
            yield from _entry(about, source, key, value, bool(remarks), settings)
        for remark in remarks:
            yield Finding(CHANGED, about, remark.removeprefix(f"{key} is ").removeprefix(f"{key}: "))
    for source, texts in notes.items():
        for text in texts:
            yield Finding(CHANGED, source, text)
    for name, source in settings.sources.items():
        if source.startswith("env "):
            yield Finding(OK, source, f"honoured: {name} = {_value(settings, name)}")


def _entry(about: str, source: str, key: str, value: str, noted: bool, settings: Settings) -> Iterator[Finding]:
    """The line itself; ``noted`` where there is a remark about it, which may be all there is to say."""
    here = [name for name, origin in settings.sources.items() if origin == source]
    elsewhere = [name for name in _fields(key) if name not in here and name in settings.sources]
    if key == "model_snapshot":
        yield from _snapshot_findings(about, settings)
    elif here:
        yield Finding(OK, about, "honoured: " + ", ".join(f"{name} = {_value(settings, name)}" for name in here))
    elif key in SWITCHES:
        on = value.strip().lower() == "true"
        yield Finding(OK, about, "honoured: variables TS_... " + ("come before this file" if on else "are not read"))
    elif key in RECORDS:
        yield Finding(OK, about, "says which server wrote the file, and sets nothing")
    elif key in settings.properties and elsewhere and settings.sources[elsewhere[0]].startswith(("env ", "flag ")):
        origin = settings.sources[elsewhere[0]]
        yield Finding(CHANGED, about, f"does not count: {origin} says {_value(settings, elsewhere[0])}")
    elif not noted:
        yield Finding(OK, about, "honoured" if value.strip() else "empty, as if it were not there")
    if "models.default_handler" in here:
        yield from _default_handler(about, settings.models.default_handler)
    if "models.load" in here:
        yield from _named_models(about, settings)


def _fields(key: str) -> list[str]:
    plain = [item.key for item in all_options() if item.torchserve == key and item.key not in TRANSLATED_FIELDS]
    return plain + [name for name, of in TRANSLATED_FIELDS.items() if of == key]


def _snapshot_findings(about: str, settings: Settings) -> Iterator[Finding]:
    for name, versions in (settings.model_snapshot or {}).get("models", {}).items():
        for version, state in versions.items():
            archive, model = state["marName"], f"{name}:{version}"
            if _is_file(archive, settings):
                workers = f"{state['minWorkers']} to {state['maxWorkers']} workers"
                text = (
                    f"restores {model} from {archive}, {workers}, batch {state['batchSize']}; no other model is loaded"
                )
                yield Finding(OK, about, text)
            else:
                text = (
                    f"{archive} of {model} is not in the model store {settings.models.store}: the server will not start"
                )
                yield Finding(FAILED, about, text)


def _named_models(about: str, settings: Settings) -> Iterator[Finding]:
    for entry in settings.models.load:
        path = entry.partition("=")[2] or entry
        if entry.lower() != "all" and not is_url(path) and not _is_file(path, settings):
            yield Finding(FAILED, about, f"{path} is not in the model store {settings.models.store}")


def _default_handler(about: str, handler: str) -> Iterator[Finding]:
    module = handler.partition(":")[0]
    if not module.endswith(".py") and "." in module and not is_there(module.partition(".")[0]):
        yield Finding(MISSING, about, f"the handler's package {module.partition('.')[0]} is not installed")


def _is_file(name: str, settings: Settings) -> bool:
    return Path(settings.models.store, name.strip()).exists() or Path(name.strip()).exists()


def is_there(module: str) -> bool:
    """Whether a top-level module can be imported here."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _value(settings: Settings, key: str) -> str:
    section, _, name = key.partition(".")
    if section == "model":
        model, _, field = name.rpartition(".")
        return written(settings.model.get(model, {}).get(field))
    if "pass" in name:
        return "(not shown)"
    return written(getattr(getattr(settings, section), name))
