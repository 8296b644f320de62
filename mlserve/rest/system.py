"""The machine under TorchServe's names, and the lines of a command that measures it (``metrics.system_command``).

TorchServe starts a Python process per interval that imports torch to read five numbers; here the server reads them
itself, in a thread. A command of the user's own is run as TorchServe runs it, because it may measure what nothing here
knows of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mlserve.protocols.ts_metrics import TorchServeMetrics
from mlserve.rest.machine import Machine, MachineReading

log = logging.getLogger(__name__)

Readings = Mapping[str, Sequence[tuple[tuple[str, ...], float]]]

# TorchServe's own form of a line; group 1 name, 3 value, 4 dimensions, 7 host.
_LINE = re.compile(
    r"\s*([\w\s]+)\.([\w\s]+):([0-9\-,.e]+)\|#([^|]*)(\|#type:([^|,]+))?\|#hostname:([^,]+),([^,]+)(,(.*))?"
)
_MIB, _GIB = 1 << 20, 1 << 30
COMMAND_TIMEOUT = 60.0  # s


def torchserve_readings(machine: MachineReading, hostname: str) -> Readings:
    """Label values (``Host``, a GPU's id, the host) and value by metric."""
    host = ("Host", hostname)
    found: dict[str, Sequence[tuple[tuple[str, ...], float]]] = {
        "CPUUtilization": [(host, round(machine.cpu_utilization * 100, 1))],
        "MemoryUsed": [(host, machine.memory_used / _MIB)],
        "MemoryAvailable": [(host, machine.memory_available / _MIB)],
        "MemoryUtilization": [(host, machine.memory_percent)],
        "DiskUsage": [(host, machine.disk_used / _GIB)],
        "DiskAvailable": [(host, machine.disk_free / _GIB)],
        "DiskUtilization": [(host, machine.disk_percent)],
    }
    if machine.gpus:
        labels = [("Host", str(gpu.gpu), hostname) for gpu in machine.gpus]
        for name, attribute, factor in (
            ("GPUUtilization", "utilization", 100.0),
            ("GPUMemoryUtilization", "memory_utilization", 100.0),
            ("GPUMemoryUsed", "memory_used", 1 / _MIB),
        ):
            values = [round(getattr(gpu, attribute) * factor, 3) for gpu in machine.gpus]
            found[name] = list(zip(labels, values, strict=True))
    return found


class Measured(NamedTuple):
    """One line of a command. ``labels`` are its dimensions' values and the host."""

    name: str
    labels: tuple[str, ...]
    value: float


def parse_lines(lines: Iterable[str]) -> Iterator[Measured]:
    """The metrics of a command's output, up to its first empty line; a line that is none is named in the log."""
    for line in lines:
        if not line.strip():
            return
        match = _LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError("not of the form Name.Unit:value|#Dimension:value|#hostname:host,time")
            pairs = [pair.split(":") for pair in match[4].split(",")]
            labels = (*(pair[1] for pair in pairs if len(pair) == 2), match[7])
            yield Measured(match[1], labels, float(match[3]))
        except ValueError as error:
            log.warning("metrics.system_command: %s in %r", error, line[:200])


class SystemMetrics:
    """Updates TorchServe's metrics of the machine each ``interval`` seconds. ``pids`` tells the workers' processes.

    Without a command it is needed for the ``log`` and ``legacy`` modes only: a scrape reads the machine itself.
    """

    def __init__(
        self,
        metrics: TorchServeMetrics,
        interval: float,
        command: str = "",
        pids: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        self._metrics = metrics
        self._interval = interval
        self._command = shlex.split(command)
        self._pids = pids
        self._machine = Machine()

    async def run(self) -> None:
        """Measure now and then each interval, until cancelled."""
        while True:
            try:
                await self._measure()
            except OSError as error:
                log.warning("the machine cannot be measured: %s", error)
            await asyncio.sleep(self._interval)

    async def _measure(self) -> None:
        if self._command:
            for one in await self._ask():
                self._metrics.server(one.name, one.labels, one.value)
            return
        readings = torchserve_readings(await asyncio.to_thread(self._machine.read), self._metrics.hostname)
        for name, values in readings.items():
            for labels, value in values:
                self._metrics.server(name, labels, value)

    async def _ask(self) -> list[Measured]:
        """Run the command with this Python, as TorchServe does; its standard input is the workers' process ids."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        pids = ",".join(map(str, self._pids())) + "\n"
        try:
            output, errors = await asyncio.wait_for(process.communicate(pids.encode()), COMMAND_TIMEOUT)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
                log.warning("metrics.system_command took more than %g s and was ended", COMMAND_TIMEOUT)
                return []
            raise
        if errors:
            log.error("metrics.system_command: %s", errors.decode("utf-8", "replace").strip()[-2000:])
        return list(parse_lines(output.decode("utf-8", "replace").splitlines()))
