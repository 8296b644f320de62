"""What is measured: each work's handler, the bodies that are sent, and the numbers of connections."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.base import HANDLERS, Job, Payload, Site
from benchmarks.peers.environment import ASSETS, COMPUTE, ensure

ASSET_SCRIPT = Path(__file__).parent / "assets.py"
EGYPTIAN_CAT = '"class": 285'


@dataclass(frozen=True)
class Row:
    """One line of the table: the bodies that are sent in turn, and over how many connections."""

    work: str
    title: str
    payloads: tuple[Payload, ...]
    connections: int
    seconds: float
    slow: bool = False  # a longer warm-up: TorchScript compiles during the first batches, which takes seconds


@dataclass(frozen=True)
class Work:
    """A handler, and the rows that are asked of it."""

    name: str
    title: str
    make_rows: Callable[[Path], list[Row]]
    files: tuple[str, ...] = ()
    loop: bool = False  # whether the handler in a bare loop is measured as well
    sort: bool = False  # whether that loop puts bodies of one length together

    def job(self, site: Site, *, drop_in: bool = False) -> Job:
        """What a server is given."""
        handler = HANDLERS / ("ts_classify.py" if drop_in and self.name == "classify" else f"{self.name}.py")
        return Job(self.name, handler, tuple(site.assets / file for file in self.files), drop_in=drop_in)


def noop_rows(assets: Path) -> list[Row]:
    """Five bytes in, two out."""
    payload = Payload("hello", assets / "hello.txt", "text/plain", "OK")
    return [Row("noop", f"no-op, {_many(count)}", (payload,), count, 2) for count in (1, 8, 32, 128, 512)]


def echo_rows(assets: Path) -> list[Row]:
    """The same bytes back, over 8 connections."""
    rows = []
    for size in ("1KiB", "100KiB", "1MiB", "8MiB"):
        payload = Payload(size, assets / f"{size}.bin", "application/octet-stream", "the end.", echoed=True)
        title = f"echo of {size.replace('KiB', ' KiB').replace('MiB', ' MiB')}, 8 connections"
        rows.append(Row("echo", title, (payload,), 8, 6 if size == "8MiB" else 2, slow=size == "8MiB"))
    return rows


def classify_rows(assets: Path) -> list[Row]:
    """The cat alone, as a small JPEG, and five photos of 40 KB to 1 MB in turn."""
    cat = Payload("cat", assets / "cat.jpg", "image/jpeg", EGYPTIAN_CAT)
    names = ("cat", "astronaut", "cat-3200", "coffee", "cat-1600")
    mixed = tuple(Payload(name, assets / f"{name}.jpg", "image/jpeg", '"class": ') for name in names)
    return [
        Row("classify", "EfficientNet-Lite0 on a JPEG, 16 connections", (cat,), 16, 6, slow=True),
        Row("classify", "EfficientNet-Lite0 on JPEGs of five sizes, 16 connections", mixed, 16, 8, slow=True),
    ]


def embed_rows(assets: Path) -> list[Row]:
    """18 texts of 2 to 200 words in turn."""
    texts = sorted(assets.glob("text-*.txt"))
    payloads = tuple(Payload(text.stem, text, "text/plain", "[") for text in texts)
    return [
        Row("embed", f"MiniLM on texts of mixed length, {_many(count)}", payloads, count, 5, slow=True)
        for count in (8, 32)
    ]


def vad_rows(assets: Path) -> list[Row]:
    """Sounds of 1 to 8 seconds in turn."""
    payloads = tuple(
        Payload(f"sound-{seconds}", assets / f"sound-{seconds}.wav", "audio/wav", '"speech": ')
        for seconds in (1, 4, 2, 8)
    )
    return [Row("vad", "silero-vad on sounds of 1 to 8 s, 16 connections", payloads, 16, 5, slow=True)]


WORKS = {
    work.name: work
    for work in (
        Work("noop", "no-op", noop_rows),
        Work("echo", "echo", echo_rows),
        Work("classify", "EfficientNet-Lite0", classify_rows, ("efficientnet_lite0.pt",), loop=True),
        Work("embed", "MiniLM", embed_rows, ("minilm.pt", "tokenizer.json"), loop=True, sort=True),
        Work("vad", "silero-vad", vad_rows, ("silero_vad.jit",), loop=True),
    )
}


def prepare(site: Site) -> None:
    """Write models and data with the environment ``compute``; what is there already stays."""
    venv = ensure(site.scratch, "compute", COMPUTE + ASSETS, site.python, compute=False)
    stamp, wanted = site.assets / ".stamp", ASSET_SCRIPT.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    done = subprocess.run(
        [venv / "bin" / "python", ASSET_SCRIPT, site.assets], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"writing models and data failed:\n{done.stderr}")
    stamp.write_text(wanted, encoding="utf-8")


def _many(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"
