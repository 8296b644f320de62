"""TorchServe's metrics as the settings ask for them: made, checked, and fed with the machine's readings."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from mlserve.errors import SettingError
from mlserve.log import open_logs
from mlserve.protocols.metrics_config import HOSTNAME, read_metrics_config
from mlserve.protocols.ts_metrics import TorchServeMetrics
from mlserve.rest.system import SystemMetrics
from mlserve.wire.payload import MetricDeclaration

if TYPE_CHECKING:
    from mlserve.core.service import InferenceService
    from mlserve.settings.tree import MetricsSettings

log = logging.getLogger("mlserve.metrics")

COLLECTOR = "ts/metrics/metric_collector.py"  # TorchServe's own, which configurations sometimes name


def check_metrics(settings: MetricsSettings) -> None:
    """Raise :class:`SettingError` for settings that cannot go together, and for a file that cannot be used."""
    if settings.families == "mlserve":
        if settings.mode != "prometheus":
            raise SettingError(
                f"metrics.mode is {settings.mode}, but metrics.families is mlserve, whose metrics are scraped only: "
                "set metrics.families to torchserve or both"
            )
        if settings.config:
            raise SettingError(
                "metrics.config declares TorchServe's metrics, but metrics.families is mlserve: "
                "set metrics.families to torchserve or both"
            )
        return
    read_metrics_config(settings.config)


def make_torchserve_metrics(settings: MetricsSettings) -> TorchServeMetrics | None:
    """None where ``metrics.families`` does not ask for them. Raises :class:`SettingError`."""
    if settings.families == "mlserve":
        return None
    logs = open_logs()
    return TorchServeMetrics(
        read_metrics_config(settings.config),
        mode=settings.mode,
        auto_detect=settings.auto_detect,
        hostname=socket.gethostname(),
        write=logs.metric if logs is not None else _to_the_log,
        flush=logs.flush_metrics if logs is not None and settings.mode != "prometheus" else lambda: None,
    )


def _to_the_log(text: str, of_model: bool) -> None:
    """Lines where there are neither TorchServe's files nor its console."""
    log.info("%s", text)


def declarations(metrics: TorchServeMetrics | None) -> tuple[MetricDeclaration, ...]:
    """What handlers find declared in ``context.metrics``; the host is not theirs to name."""
    if metrics is None:
        return ()
    return tuple(
        MetricDeclaration(one.name, one.unit, one.kind, [name for name in one.labels if name != HOSTNAME])
        for one in metrics.config.model.values()
    )


def attach(
    metrics: TorchServeMetrics | None, service: InferenceService, settings: MetricsSettings
) -> asyncio.Task[None] | None:
    """Let ``metrics`` hear of what ``service`` does from now on.

    Returns the task that measures the machine each ``metrics.interval``; None where a scrape does, or nobody asks.
    """
    if metrics is None:
        return None
    service.observer = metrics
    service.http_counts.on_answer = metrics.http_answer
    command = "" if settings.system_command.startswith(COLLECTOR) else settings.system_command
    if not settings.system or (settings.mode == "prometheus" and not command):
        return None

    def pids() -> list[int]:
        return [info.pid for handle in service.versions() for info in handle.pool.describe() if info.pid > 0]

    return asyncio.create_task(SystemMetrics(metrics, settings.interval, command, pids).run())
