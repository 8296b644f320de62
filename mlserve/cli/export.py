"""``mlserve export``: a torch model to ONNX, .pt2, TorchScript, OpenVINO or TensorRT, checked against the original."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlserve.cli.flags import with_settings
from mlserve.cli.run import find_model
from mlserve.errors import ArchiveError, InvalidInput
from mlserve.settings import Settings

if TYPE_CHECKING:
    from mlserve.core.model import ModelSpec

FORMATS = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".pt", "openvino": ".xml", "tensorrt": ".plan"}
"""Format -> the suffix by which a server knows its files."""
_ORIGINAL_ONLY = ("runtime", "torch", "pt2", "handler")


@with_settings(only={"models.store"})
def export(
    settings: Settings,
    model: Annotated[str, typer.Argument(help="A model file, a directory, an archive, or a model of the store.")],
    to: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.", metavar="FORMAT")],
    sample: Annotated[Path, typer.Option(help="A request's body: JSON, .npy or .npz. Its shapes are exported.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="[default: the model's name]", show_default=False)
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far outputs may be from the original's, absolutely.")
    ] = 1e-3,
    archive: Annotated[
        bool, typer.Option("--archive", help="Pack the result as NAME.mar beside it, served without code.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.")] = False,
) -> None:
    """Export a model with a dynamic batch, then compare: on the sample and on random inputs, in several batch sizes.

    Prints the largest errors and the times of both. Exits with 1 if the error is above the tolerance; what was written
    is kept then, with .rejected at its name.
    """
    if to not in FORMATS:
        raise typer.BadParameter(f"--to must be one of {', '.join(FORMATS)}")
    if output is not None and output.suffix != FORMATS[to]:
        raise typer.BadParameter(f"--output must end in {FORMATS[to]}: a server knows the format by it")
    with tempfile.TemporaryDirectory(prefix="mlserve-export-") as scratch:
        spec = find_model(settings, model, "", Path(scratch))
        code, weights, name = _files(spec)
        exporting = _exporting()
        target = output or Path(name + FORMATS[to])
        _refuse_existing([target, *([target.with_name(f"{name}.mar")] if archive else [])], weights, force)
        out = Path(scratch, "out")
        out.mkdir()
        found = _export(exporting, spec, code, weights, sample, to, out / target.name)
        good = found.max_abs <= tolerance
        _say(found, tolerance)
        kept = _keep(out, target.parent, weights, "" if good else ".rejected", force)
        typer.echo(f"{', '.join(map(str, kept))} {'written' if good else 'kept: it is not what the original is'}")
        if not good:
            raise typer.Exit(1)
        if archive:
            _pack(target, [path for path in kept if path != target], spec, found.inputs, force, Path(scratch))


def _exporting() -> Any:
    """The module that exports, which imports torch."""
    try:
        return importlib.import_module("mlserve.handlers.exporting")
    except ImportError as error:
        raise InvalidInput(
            f"Exporting needs the package {error.name}: pip install 'mlserve[torch]' ({error})"
        ) from error


def _files(spec: ModelSpec) -> tuple[Path | None, Path, str]:
    """(code, weights, name) of the model. Raises :class:`ArchiveError` where it has no weights."""
    named = spec.manifest.get("model") or {}
    directory = Path(spec.model_dir)
    if not named.get("serializedFile"):
        raise ArchiveError(f"{spec.url} names no --serialized-file: there is no model to export")
    code = directory / (named.get("modelFile") or "model.py")
    return (code if code.is_file() else None), directory / named["serializedFile"], spec.key.name


def _refuse_existing(made: list[Path], source: Path, force: bool) -> None:
    for path in made:
        if path.exists() and (not force or path.samefile(source)):
            raise InvalidInput(f"{path} exists: give --output, or --force to overwrite it")


def _export(
    exporting: Any, spec: ModelSpec, code: Path | None, weights: Path, sample: Path, to: str, target: Path
) -> Any:
    from mlserve.engine.local import available_cpus

    threads = max(1, int(available_cpus()))
    try:
        model = exporting.load(weights, code, dict(spec.config), threads)
        arrays = exporting.example(model, sample.read_bytes())
        exporting.export(model, arrays, to, target)
        return exporting.compare(model, target, arrays, threads)
    except ImportError as error:
        extra = to if to in ("onnx", "openvino", "tensorrt") else "torch"
        raise InvalidInput(
            f"Exporting to {to} needs the package {error.name}: pip install 'mlserve[{extra}]' ({error})"
        ) from error
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    except Exception as error:  # torch's exporters have many ways to fail, and say why
        raise InvalidInput(f"{weights.name} cannot be exported to {to}: {type(error).__name__}: {error}") from error


def _say(found: Any, tolerance: float) -> None:
    judged = "within" if found.max_abs <= tolerance else "ABOVE"
    error = f"largest error {found.max_abs:.3g} absolute, {found.max_rel:.3g} relative"
    typer.echo(f"{error}: {judged} the tolerance {tolerance:g}")
    before, after = found.seconds_before * 1000, found.seconds_after * 1000
    typer.echo(f"a batch of 5: {before:.2f} ms before, {after:.2f} ms with {found.runtime}")


def _keep(out: Path, folder: Path, source: Path, suffix: str, force: bool) -> list[Path]:
    """Move all that was written (OpenVINO's .bin and ONNX's external data too) into ``folder``; returns the paths."""
    import shutil

    moves = {path: folder / f"{path.name}{suffix}" for path in sorted(out.iterdir())}
    _refuse_existing(list(moves.values()), source, force or bool(suffix))
    for path, target in moves.items():
        shutil.move(path, target)
    return list(moves.values())


def _pack(
    target: Path, beside: list[Path], spec: ModelSpec, inputs: dict[str, Any], force: bool, scratch: Path
) -> None:
    """Pack the new file with the original's configuration, but for what says how that one was run."""
    import yaml

    from mlserve.archive import pack
    from mlserve.archive.modelfiles import HANDLER

    config = {"inputs": inputs, **{key: value for key, value in spec.config.items() if key not in _ORIGINAL_ONLY}}
    config_file = scratch / "model-config.yaml"
    config_file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    packed = pack(
        config_file=config_file,
        model_name=spec.key.name,
        version=spec.key.version,
        handler=HANDLER,
        serialized_file=target,
        extra_files=[str(path) for path in beside] or None,
        export_path=target.parent,
        force=force,
    )
    typer.echo(f"{packed} written: mlserve start --models {spec.key.name}={packed}")
