"""A setting under real load: a server of its own, in a process of its own, with the model-config.yaml that would be
written, and closed loops of clients over HTTP."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserve.archive.manifest import MANIFEST_DIR, MANIFEST_PATH
from mlserve.archive.yamlfile import DEFAULT_CONFIG_NAME
from mlserve.cli.console import LogProgress
from mlserve.cli.detach import own_server
from mlserve.cli.loops import run_loop
from mlserve.cli.tune_search import Setting, Slo, clients_text, strain_of
from mlserve.cli.tune_search import Trial as Verifying
from mlserve.errors import ServeError
from mlserve.load.result import LoadResult
from mlserve.load.runners import closed_loop
from mlserve.load.target import Payload, Target, model_path
from mlserve.startup import TUNE_DIR, own_prefix

if TYPE_CHECKING:
    from mlserve.cli.tune_measure import Inputs, Say
    from mlserve.core.model import ModelSpec

NAME = "tuned"
WARMUP = 0.5  # seconds of a load that is not counted, until one is no faster than the one before
SETTLED = 1.1  # times
WARMUPS = 8  # TorchScript compiles during the first batches of each shape, for seconds
TUNED = (
    "batch_size",
    "max_batch_delay_ms",
    "batch_policy",
    "latency_target_ms",
    "min_workers",
    "max_workers",
    "threads_per_worker",
    "handler_threads",
)
PORTS = ("inference", "management", "metrics")
ENVIRON = {"MLSERVE_WORKERS_SPARE": "0"}  # a spare would import torch, 2 s of a core, beside the load


@dataclass
class Verified:
    """A setting, and what so many clients saw. ``strain`` up to 1 is a target that is met."""

    setting: Setting
    result: LoadResult
    strain: float

    @property
    def met(self) -> bool:
        """Whether every target holds, without an error."""
        return self.strain <= 1.0 and not self.result.error_count


def verify(
    spec: ModelSpec,
    gpus: Sequence[int],
    trial: Verifying,
    inputs: Inputs,
    slos: Sequence[Slo],
    seconds: float,
    say: Say,
) -> list[Verified]:
    """Serve the setting and load it with each of the numbers of clients, until one meets the targets.

    Raises :class:`ServeError` if the server does not come up.
    """
    found: list[Verified] = []
    with serving(spec, trial.setting, gpus) as address:
        payloads = tuple(Payload(body, content_type) for body, content_type in inputs)
        target = Target(address, model_path(NAME), payloads)
        for clients in trial.clients:
            result = _loaded(target, clients, seconds)
            quantiles = {slo.name: result.quantile(slo.share) for slo in slos}
            found.append(Verified(trial.setting, result, strain_of(quantiles, slos)))
            say(told(found[-1], slos))
            if found[-1].met:
                break
    return found


def told(one: Verified, slos: Sequence[Slo]) -> str:
    """A line about a verified setting."""
    setting, result = one.setting, one.result
    values = ", ".join(f"{slo.name} {result.quantile(slo.share) * 1000:.1f} ms" for slo in slos)
    errors = f", {result.error_count} ERRORS ({next(iter(result.errors))})" if result.error_count else ""
    return (
        f"{setting}, {clients_text(result.level)}: {result.rate:,.1f}/s, {values}{errors}: "
        f"{'met' if one.met else 'not met'}"
    )


def _loaded(target: Target, clients: int, seconds: float) -> LoadResult:
    results: list[LoadResult] = []

    async def load() -> None:
        before = 0.0
        for _ in range(WARMUPS):
            rate = (await closed_loop(target, clients, WARMUP)).rate
            if rate and rate <= SETTLED * before:
                break
            before = rate
        results.append(await closed_loop(target, clients, seconds))

    run_loop(load(), fast=True)
    return results[0]


@contextlib.contextmanager
def serving(spec: ModelSpec, setting: Setting, gpus: Sequence[int]) -> Iterator[str]:
    """A server with the model in this setting, on these GPUs; its address. Everything of it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=own_prefix(TUNE_DIR)) as folder:
        place = Path(folder)
        model = place / "model"
        lay_out(spec, setting.config(), model)
        (place / "mlserve.toml").write_text(settings_text(spec, gpus), encoding="utf-8")
        ports = [f"--{name}-port=0" for name in PORTS]
        arguments = [f"--config={place / 'mlserve.toml'}", f"--pid-file={place / 'pid'}", "--no-grpc", *ports]
        arguments += ["--access-log=off", f"--models={NAME}={model}"]
        progress = LogProgress()
        with own_server(arguments, place / "log", progress, ENVIRON) as server:
            if server.exit_code is not None:
                reason = "; ".join(progress.failures.values()) or server.failure
                raise ServeError(f"the server to verify with did not start: {reason}")
            yield progress.addresses["inference"]


def settings_text(spec: ModelSpec, gpus: Sequence[int]) -> str:
    """An mlserve.toml that has the model as it was measured: with what it owes to ``[defaults]`` and ``[model.NAME]``,
    and not to its own files."""
    from mlserve.settings.models import ModelOverrides

    lines = ["[server]", 'host = "127.0.0.1"', "[gpu]", f"ids = {json.dumps(list(gpus))}", f"[model.{NAME}]"]
    for name in (field.name for field in fields(ModelOverrides)):
        if name not in (*TUNED, "python") and spec.provenance.get(name, "").startswith(("default", "mlserve.toml")):
            lines.append(f"{name} = {json.dumps(getattr(spec, name))}")
    return "\n".join([*lines, ""])


def lay_out(spec: ModelSpec, config: Mapping[str, Any], folder: Path) -> None:
    """The model's files as links in ``folder``, with its configuration and ``config`` over it."""
    import yaml

    folder.mkdir()
    given = str((spec.manifest.get("model") or {}).get("configFile") or DEFAULT_CONFIG_NAME)
    for entry in Path(spec.model_dir).iterdir():
        if entry.name not in (MANIFEST_DIR, given, DEFAULT_CONFIG_NAME):
            (folder / entry.name).symlink_to(entry.absolute())
    model = {"modelName": spec.key.name, "modelVersion": spec.key.version, "handler": spec.handler}
    model |= {**(spec.manifest.get("model") or {}), "configFile": DEFAULT_CONFIG_NAME}
    manifest = {"runtime": "python", **spec.manifest, "model": model}
    (folder / MANIFEST_DIR).mkdir()
    (folder / MANIFEST_PATH).write_text(json.dumps(manifest), encoding="utf-8")
    text = yaml.safe_dump({**without(spec.config), **config}, sort_keys=False, allow_unicode=True)
    (folder / DEFAULT_CONFIG_NAME).write_text(text, encoding="utf-8")


def without(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` without what is tuned, in any of its spellings."""
    gone = tuned_keys()
    return {key: value for key, value in config.items() if key not in gone}


def tuned_keys() -> set[str]:
    """Every spelling of what is tuned."""
    from mlserve.archive.spec import OPTIONS

    return {name for field in TUNED for name in (field, OPTIONS[field].key)}
