"""The command line of ``mlserve start``, read without typer.

Typer brings pydantic along: 0.2 s of CPU before a first worker can be started, and 11 MiB that the server would keep
for as long as it runs. What is not plain is left to typer, which knows what to say about it: help, mistakes,
completion.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlserve.cli.sources import CommandLine, make_command_line
from mlserve.settings import all_options

_FILES = ("--config", "--ts-config", "--profile", "--log-file", "--events-fd")


class Start(NamedTuple):
    """What ``mlserve start`` was told."""

    line: CommandLine
    detach: bool
    log_file: Path | None
    events_fd: int


class _NotPlainError(Exception):
    pass


def read(arguments: Sequence[str]) -> Start | None:
    """``mlserve start ARGUMENTS``; None where typer is to have a look."""
    if "_MLSERVE_COMPLETE" in os.environ:
        return None
    try:
        return _read(iter(arguments))
    except _NotPlainError:
        return None


def _read(words: Iterator[str]) -> Start:
    options = {item.flag: item for item in all_options() if item.flag}
    switches = {flag: (item.key, True) for flag, item in options.items() if item.kind == "bool"}
    switches |= {flag.replace("--", "--no-", 1): (key, False) for flag, (key, _) in switches.items()}
    flags: dict[str, Any] = {}
    named: dict[str, str] = {}
    more_models: list[str] = []
    detach = False
    for word in words:
        flag, given, value = word.partition("=")
        if word in switches:
            key, flags[key] = switches[word][0], switches[word][1]
        elif word in ("--detach", "-d"):
            detach = True
        elif flag in _FILES:
            named[flag] = value if given else _value(words)
        elif flag in options and flag not in switches:
            item, value = options[flag], value if given else _value(words)
            flags[item.key] = [*flags.get(item.key, []), value] if item.kind == "texts" else value
        elif word.startswith("-") or not word:
            raise _NotPlainError
        else:
            more_models.append(word)
    return _checked(make_command_line(flags, more_models), detach, named)


def _value(words: Iterator[str]) -> str:
    value = next(words, "-")
    if value.startswith("-"):  # a value like this, or a flag without one
        raise _NotPlainError
    return value


def _checked(line: CommandLine, detach: bool, named: dict[str, str]) -> Start:
    def path(flag: str) -> Path | None:
        return Path(named[flag]) if flag in named else None

    events = named.get("--events-fd", "-1")
    if "--events-fd" in named and not (events.isascii() and events.isdigit()):
        raise _NotPlainError
    line = line._replace(config=path("--config"), ts_config=path("--ts-config"), profile=named.get("--profile", ""))
    log_file = path("--log-file")
    if log_file is not None and not detach and int(events) < 0:
        raise _NotPlainError
    return Start(line, detach, log_file, int(events))
