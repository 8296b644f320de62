"""``mlserve archive --auto-config``: inputs, outputs and batch of a model, as the model itself tells them.

A worker opens it, as it would be served, because only the runtime of its format can read it. Then it gets batches of
1, 2, 3 and 8 rows of zeros: that shows the outputs of files that don't describe them (weights, TorchScript), and
whether a batch dimension that is called dynamic is. What the user wrote stays as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserve.archive.modelfiles import HANDLER
from mlserve.archive.yamlfile import DEFAULT_CONFIG_NAME, parse_config
from mlserve.cli.loops import run_loop
from mlserve.errors import ArchiveError, InvalidInput, ServeError

if TYPE_CHECKING:
    from mlserve.cli.trial import Trial
    from mlserve.core.model import ModelSpec

BATCH = 8  # for a model that takes any: the default of 1 would never batch
ROWS = (1, 2, 3, BATCH)
BATCH_KEYS = ("batchSize", "batch_size")
_SERVING = frozenset({"auto", "onnx", "tabular"})  # handlers that read what is written here
_OTHERS = frozenset({"audio", "embedding", "huggingface", "llm"})
_MOST_VALUES = 4_000_000  # of the rows that are sent as JSON
_DTYPES = {
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{kind.upper()}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{"BF16": "bfloat16", "BOOL": "bool", "BYTES": "str"},
}
"""The Open Inference Protocol's dtypes -> those of model-config.yaml."""


@dataclass
class Found:
    """What the model says: tensors as model-config.yaml has them, the batch size and why it is that."""

    runtime: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    batch_size: int = BATCH
    why: str = "the file says that its batch dimension varies"
    notes: list[str] = field(default_factory=list)


def configured(arguments: Mapping[str, Any], scratch: Path, say: Callable[[str], object]) -> Path:
    """The configuration to pack: the user's with what was found, a file below ``scratch``. ``say`` gets the lines.

    ``arguments`` are those of :func:`mlserve.archive.pack`. Raises :class:`InvalidInput` for a model that none of the
    runtimes opens, with the worker's words.
    """
    if not arguments["serialized_file"]:
        raise InvalidInput("--auto-config needs --serialized-file: it asks the model itself")
    given = Path(arguments["config_file"]) if arguments["config_file"] else None
    text = given.read_bytes() if given is not None else b""
    name = given.name if given is not None else DEFAULT_CONFIG_NAME
    config = parse_config(text, name)
    found = _asked(arguments, scratch)
    kept = [key for key in ("inputs", "outputs", *BATCH_KEYS) if key in config]
    target = scratch / name
    written = added(found, config)
    target.write_text(joined(text.decode(), written, config, name), encoding="utf-8")
    for line in (*written.splitlines(), *(f"kept as written: {key}" for key in kept), *found.notes):
        say(line)
    return target


def _asked(arguments: Mapping[str, Any], scratch: Path) -> Found:
    from mlserve.archive import pack
    from mlserve.archive.requirements import installing
    from mlserve.cli.run import find_model
    from mlserve.cli.sources import CommandLine, read_settings

    settings = read_settings(CommandLine())
    (scratch / "packed").mkdir()
    plain = {**arguments, "archive_format": "no-archive", "export_path": scratch / "packed", "force": False}
    directory = pack(**plain)
    spec = find_model(settings, str(directory), "", scratch / "work", installing(settings))
    handler = spec.handler.removeprefix("mlserve.handlers.")
    if handler in _OTHERS:
        raise InvalidInput(f"--auto-config does not go with the handler {handler}, which knows its inputs by itself")
    config = {key: value for key, value in spec.config.items() if key not in ("pt2", "warmup")}  # not to be served now
    if isinstance(config.get("torch"), dict):
        config["torch"] = {key: value for key, value in config["torch"].items() if key != "cuda_graphs"}
    spec = replace(spec, config=config, handler=spec.handler if handler in _SERVING else HANDLER, batch_size=1)
    logger = logging.getLogger("mlserve")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # a batch that fails is an answer here, not a fault
    try:
        return run_loop(_opened(settings, spec))
    finally:
        logger.setLevel(level)


async def _opened(settings: Any, spec: ModelSpec) -> Found:
    from mlserve.cli.trial import Trial
    from mlserve.engine.local import LocalEngine, available_cpus, discover_gpus, load_options

    options = replace(load_options(settings), retry_first_load=False)
    gpus = settings.gpu.ids if settings.gpu.ids is not None else tuple(discover_gpus())
    engine = LocalEngine(gpu_ids=gpus, cpus=available_cpus(), options=options)
    try:
        async with Trial(engine, spec) as trial:
            signature = trial.signature
            if not signature.get("inputs"):
                raise InvalidInput("--auto-config: the model does not say what its inputs are")
            return await examined(trial, signature)
    except ServeError as error:
        if isinstance(error, InvalidInput):
            raise
        reason = error.detail.strip().splitlines()[-1:] or [error.message]
        raise ArchiveError(f"--auto-config: no runtime opens the model: {reason[0]}") from error
    finally:
        await engine.close()


async def examined(trial: Trial, signature: Mapping[str, Any]) -> Found:
    """The signature of a loaded model, completed by what it answers to zeros."""
    inputs, outputs = signature["inputs"], signature.get("outputs") or []
    found = Found(str(signature.get("runtime", "")), _tensors(inputs), _tensors(outputs))
    fixed = fixed_batch(inputs)
    unknown = [one["name"] for one in inputs if one["shape"] is None or one["datatype"] is None]
    if unknown:
        found.notes.append(
            f"the file does not say dtype and shape of {', '.join(unknown)}: write them under inputs: and run this "
            "again, which then finds the outputs as well"
        )
    if not outputs:
        found.batch_size, found.why = 1, "whether the batch dimension varies is not known"
    if fixed is not None:
        found.batch_size = fixed
        found.why = "the model has no dynamic batch dimension: this is its fixed length"
    elif all(one["batch_axis"] is None for one in inputs):
        found.batch_size, found.why = 1, "the model has no dynamic batch dimension: its inputs have none"
    if not unknown and any(one["batch_axis"] is not None for one in inputs):
        await _tried(trial, inputs, found, fixed)
    return found


async def _tried(trial: Trial, inputs: Sequence[Mapping[str, Any]], found: Found, fixed: int | None) -> None:
    """Send batches of zeros; learn the outputs, and whether the batch dimension varies."""
    answers: dict[int, list[dict[str, Any]]] = {}
    for rows in ROWS if fixed is None else (fixed,):
        body = zeros(inputs, rows)
        if body is None:
            return
        [answer], _ = await trial.send([(body, "application/json")])
        if answer.error:
            if rows == 1 or fixed is not None:
                found.notes.append(f"the model was not tried out: it refuses zeros ({_last_line(answer.error)})")
                return
            _limit(found, max(answers), rows)
            found.notes.append(f"a batch of {rows}: {_last_line(answer.error)}")
            break
        answers[rows] = json.loads(answer.body)["outputs"]
    else:
        if fixed is None:
            found.batch_size, found.why = BATCH, f"batches of {', '.join(map(str, ROWS))} rows were answered"
    if not found.outputs:
        varies = any(-1 in _item(one) for one in inputs)
        found.outputs = outputs_of(answers, varies)


def _limit(found: Found, good: int, bad: int) -> None:
    """The model answers ``good`` rows and not ``bad``; of one that takes a single row that is the fixed length."""
    found.batch_size, found.why = good, f"a batch of {bad} fails"
    if good > 1:
        return
    found.why = f"the model has no dynamic batch dimension: {found.why}"
    for tensor in (*found.inputs.values(), *found.outputs.values()):
        if tensor["batch_axis"] is None and tensor.get("shape", [])[:1] == [1]:
            tensor["batch_axis"] = 0
        if tensor["batch_axis"] is not None and "shape" in tensor:
            tensor["shape"][tensor["batch_axis"]] = 1


def zeros(inputs: Sequence[Mapping[str, Any]], rows: int) -> bytes | None:
    """A request in the Open Inference style of ``rows`` rows; ``None`` for one that would be too large as JSON."""
    tensors = []
    for one in inputs:
        axis = one["batch_axis"]
        shape = [rows if at == axis else max(dim, 1) if dim < 0 else dim for at, dim in enumerate(one["shape"])]
        count = 1
        for dim in shape:
            count *= dim
        if count > _MOST_VALUES:
            return None
        value: Any = {"BYTES": "", "BOOL": False}.get(one["datatype"], 0)
        tensors.append({"name": one["name"], "shape": shape, "datatype": one["datatype"], "data": [value] * count})
    return json.dumps({"inputs": tensors}).encode()


def outputs_of(answers: Mapping[int, Sequence[Mapping[str, Any]]], varies: bool) -> dict[str, Any]:
    """The outputs of batches of several lengths: what follows the batch is its axis, other lengths are the model's,
    unless they may depend on an input's (``varies``)."""
    found: dict[str, Any] = {}
    batches = sorted(answers)
    for at, first in enumerate(answers[batches[0]]):
        shapes = [answers[rows][at]["shape"] for rows in batches]
        tensor: dict[str, Any] = {"dtype": _DTYPES.get(first["datatype"], "")}
        axis = None
        if len({len(shape) for shape in shapes}) == 1:
            lengths = list(zip(*shapes, strict=True))  # of each dimension, in every answer
            axis = lengths.index(tuple(batches)) if tuple(batches) in lengths else None
            if not varies:
                tensor["shape"] = [one[0] if len(set(one)) == 1 else -1 for one in lengths]
        found[first["name"]] = {**tensor, "batch_axis": axis}
    return found


def fixed_batch(inputs: Sequence[Mapping[str, Any]]) -> int | None:
    """The only length of the batch that the model takes."""
    for one in inputs:
        shape, axis = one["shape"], one["batch_axis"]
        if shape is not None and axis is not None and shape[axis] >= 0:
            return int(shape[axis])
    return None


def added(found: Found, config: Mapping[str, Any]) -> str:
    """The lines for what the user has not written himself; a tensor is one of them."""
    lines = [f"# Found in the model by mlserve archive --auto-config ({found.runtime})."]
    for section, tensors in (("inputs", found.inputs), ("outputs", found.outputs)):
        if section not in config and tensors:
            lines += [f"{section}:", *(f"  {_flow({name: tensor})}" for name, tensor in tensors.items())]
    if not any(key in config for key in BATCH_KEYS):
        lines.append(f"batchSize: {found.batch_size} # {found.why}")
    elif (size := next(config[key] for key in BATCH_KEYS if key in config)) != found.batch_size != BATCH:
        found.notes.append(f"batch size {size} is kept, but {found.why} ({found.batch_size})")
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""


def joined(text: str, written: str, config: Mapping[str, Any], name: str) -> str:
    """The user's text with the new lines after it; written anew where it cannot be continued (``{…}`` on top)."""
    import yaml

    new = parse_config(written.encode(), name)
    together = f"{text.rstrip()}\n\n{written}" if text.strip() else written
    try:
        if parse_config(together.encode(), name) == {**config, **new}:
            return together
    except ArchiveError:
        pass
    return yaml.safe_dump({**config, **new}, sort_keys=False, allow_unicode=True)


def _tensors(described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The tensors of a description as model-config.yaml has them."""
    found: dict[str, Any] = {}
    for one in described:
        tensor: dict[str, Any] = {}
        if one["datatype"] is not None:
            tensor["dtype"] = _DTYPES[one["datatype"]]
        if one["shape"] is not None:
            tensor["shape"] = list(one["shape"])
        found[one["name"]] = {**tensor, "batch_axis": one["batch_axis"]}
    return found


def _item(one: Mapping[str, Any]) -> list[int]:
    return [dim for at, dim in enumerate(one["shape"]) if at != one["batch_axis"]]


def _flow(value: Mapping[str, Any]) -> str:
    """``x: {dtype: float32, shape: [-1, 3], batch_axis: 0}``."""
    import yaml

    return str(
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    ).strip()[1:-1]


def _last_line(text: str) -> str:
    """What is wrong stands there: libraries put where it happened before it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
