"""Workers of one archived torch model share the memory of its weights."""

import dataclasses
from pathlib import Path

import torch

SIZE = 192 << 20  # bytes of the weights: more than the 150 MiB that a process with torch has of its own

NET = f"""
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.big = torch.nn.Parameter(torch.ones({SIZE >> 12}, 1024))
        self.exact = torch.nn.Parameter(torch.ones(4, dtype=torch.float64), requires_grad=False)

    def forward(self, x):
        assert self.exact.dtype is torch.float64 and not self.exact.requires_grad and self.big.requires_grad
        return x + self.big.sum() / self.big.numel()
"""


def memory(pid):
    """Bytes by name, of the whole process."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    return {name.rstrip(":"): int(value) << 10 for name, value, *_ in lines}


def test_each_worker_has_a_copy_of_the_weights(rig):
    (rig.directory / "net.py").write_text(NET)
    state = {"big": torch.full((SIZE >> 12, 1024), 2.0), "exact": torch.ones(4)}  # saved as float32, as some do
    torch.save(state, rig.directory / "w.pt")
    manifest = {"model": {"modelFile": "net.py", "serializedFile": "w.pt"}}
    spec = dataclasses.replace(rig.spec(), handler="base_handler", manifest=manifest)

    async def test(pool, events):
        await pool.scale(1)
        assert await events.ask(events.ready[0], b"[1.0]") == [b"[\n  3.0\n]"]
        alone = memory(pool.describe()[0].pid)
        assert alone["Anonymous"] < SIZE, "neither the file's weights nor those it was made with are kept in the heap"
        await pool.scale(2)
        await events.ask(events.ready[1], b"[1.0]")
        both = [memory(worker.pid)["Pss"] for worker in pool.describe()]
        assert sum(both) < 1.5 * alone["Pss"], (both, alone)

    rig.run(spec, test)
    (rig.directory / "w.pt").unlink()
