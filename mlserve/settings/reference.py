"""The reference page of all settings, written from the tree."""

from __future__ import annotations

from collections.abc import Iterable

from mlserve.settings.option import Option
from mlserve.settings.profiles import ENVIRONMENT, PROFILES
from mlserve.settings.torchserve import TRANSLATED_FIELDS
from mlserve.settings.torchserve_models import MODEL_KEYS
from mlserve.settings.tree import SECTIONS, all_options, model_options
from mlserve.settings.values import expected, written

_HEAD = """\
# Settings

Written by `mlserve config reference`. `mlserve config show` prints the values in effect and where each comes from.

A value comes from the first of these that has it:

1. a flag of `mlserve start`;
2. an environment variable, `MLSERVE_<SECTION>_<FIELD>`;
3. the settings file: `--config FILE`, else `$MLSERVE_CONFIG`, else `./mlserve.toml`;
4. the default.

The settings file is TOML with one table per section (`[server]`, `[defaults]`, ...), or, when its name ends in
`.properties` or it is given as `--ts-config FILE`, a TorchServe `config.properties`. A key that does not exist, a value
of the wrong type and a value out of range are errors that name the file and line. TorchServe's keys that have no
meaning here are listed in the start-up log. With `--ts-config`, `$TS_CONFIG_FILE` comes before FILE, and where the file
says `enable_envvars_config=true`, `TS_<KEY>` variables come before everything else, flags too.
"""
_MODEL_HEAD = """\
## [model.NAME]

Overrides for one model (`[model.NAME]`) or one version of it (`[model."NAME:VERSION"]`). In a `config.properties` this
is the JSON of the key `models`; its names are in the last column.

| Key | Default | Meaning | TorchServe key |
|---|---|---|---|
"""
_PROFILE_HEAD = """\
## Profile `{name}`

Defaults that `--profile {name}`, `$MLSERVE_PROFILE` or `profile = "{name}"` at the top of the settings file take the
place of; a `config.properties` means this profile. `mlserve config diff` compares a configuration with it.

"""


def reference() -> str:
    """The page, in Markdown."""
    pages = [_HEAD]
    for section, cls in SECTIONS.items():
        items = [item for item in all_options() if item.section == section]
        head = "| Key | Default | Meaning | Flag | Environment | TorchServe key |\n|---|---|---|---|---|---|\n"
        pages.append(f"## [{section}]\n\n{cls.__doc__}\n\n{head}" + "".join(_row(item) for item in items))
    renamed = {field: key for key, field in MODEL_KEYS.items()}
    rows = (_line((_code(item.name), "", _meaning(item), _code(renamed.get(item.name, "")))) for item in _models())
    pages.append(_MODEL_HEAD + "".join(rows))
    pages += [_profile(name) for name in PROFILES]
    return "\n".join(pages)


def _profile(name: str) -> str:
    """The profile as a table: the whole difference to mlserve's own defaults."""
    known = {item.key: item for item in all_options()}
    rows = (
        _line((_code(key), _code(written(known[key].default)), _code(written(value)), known[key].help))
        for key, value in PROFILES[name].items()
    )
    variables = "".join(_line((_code(variable), _code(key))) for variable, key in ENVIRONMENT.get(name, {}).items())
    return (
        f"{_PROFILE_HEAD.format(name=name)}| Key | mlserve's default | `{name}` | Meaning |\n|---|---|---|---|\n"
        f"{''.join(rows)}\nIts users' variables are read as well:\n\n| Variable | Key |\n|---|---|\n{variables}"
    )


def _models() -> Iterable[Option]:
    return model_options().values()


def _row(item: Option) -> str:
    default = _code(written(item.default))
    return _line(
        (_code(item.name), default, _meaning(item), _code(item.flag), _code(item.env), _code(_torchserve(item)))
    )


def _torchserve(item: Option) -> str:
    return TRANSLATED_FIELDS.get(item.key, item.torchserve)


def _meaning(item: Option) -> str:
    unit = f" Unit: {item.unit}." if item.unit else ""
    kind = expected(item).replace("'", "`")
    return f"{item.help}{unit} {kind[0].upper()}{kind[1:]}." if item.kind != "text" or item.choices else item.help


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
