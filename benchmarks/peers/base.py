"""What all peers share: the job a server is given, the requests that ask it."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import post
from benchmarks.wrk import Request

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "benchmarks" / "apps"
HANDLERS = ROOT / "benchmarks" / "handlers"
BATCH, DELAY_MS, QUEUE, TIMEOUT_S, LARGEST = 8, 5, 4096, 120, 64 << 20


@dataclass(frozen=True)
class Payload:
    """What is asked: the bytes a plain HTTP client posts, and the text that every right answer contains."""

    name: str
    body: Path
    content_type: str
    expect: str
    echoed: bool = False  # whether the answer is the body

    @property
    def is_text(self) -> bool:
        """Whether it can be a JSON string as it is."""
        return self.content_type.startswith("text/")


@dataclass(frozen=True)
class Job:
    """What a server is to serve: a handler of ``benchmarks/handlers`` with its files, in batches of 8 after 5 ms."""

    name: str
    handler: Path
    files: tuple[Path, ...] = ()
    workers: int = 1
    drop_in: bool = False  # TorchServe's own archiver, handlers and settings file, for both servers

    def environ(self, folder: Path, port: int) -> dict[str, str]:
        """What an application in ``benchmarks/apps`` reads: see ``apps/job.py``."""
        return {
            "BENCH_HANDLER": str(self.handler),
            "BENCH_FOLDER": str(folder),
            "BENCH_PORT": str(port),
            "BENCH_BATCH": str(BATCH),
            "BENCH_DELAY_MS": str(DELAY_MS),
            "BENCH_WORKERS": str(self.workers),
            "PYTHONPATH": str(APPS),
        }


@dataclass(frozen=True)
class Site:
    """Where it happens: the scratch folder, and the Python that environments are made with."""

    scratch: Path
    python: str

    @property
    def assets(self) -> Path:
        """The folder of models and data, made once."""
        return self.scratch / "assets"

    def run_dir(self, peer: str, job: Job) -> Path:
        """A folder for one server's logs and temporary files."""
        folder = self.scratch / "run" / f"{peer}-{job.name}{'-drop-in' * job.drop_in}"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        return folder


def ask(url: str, request: Request, number: int = 0) -> tuple[int, bytes]:
    """Status and body of one POST of the request's body ``number``; (0, b"") where nobody answers."""
    headers = {"Content-Type": request.content_type, **dict(request.headers)}
    return post(url + request.path, request.bodies[number].read_bytes(), headers)


def wrap(body: bytes, is_text: bool) -> dict[str, str]:
    """A body in JSON: text as it is, anything else as base64. As ``apps/job.py`` takes and gives it."""
    return {"text": body.decode()} if is_text else {"base64": base64.b64encode(body).decode()}


def unwrap(fields: dict[str, str]) -> bytes:
    """What ``wrap`` was given."""
    return fields["text"].encode() if "text" in fields else base64.b64decode(fields["base64"])


def wrapped(payload: Payload) -> str:
    """What a right answer contains if it comes wrapped in JSON: its end as base64, or its text with quotes escaped."""
    if payload.echoed:
        return base64.b64encode(payload.body.read_bytes()).decode()[-12:]
    return json.dumps(payload.expect)[1:-1]


def bodies(site: Site, peer: str, payloads: Sequence[Payload], make: Callable[[bytes, bool], bytes]) -> list[Path]:
    """Files with the payloads as ``peer`` wants them: ``make`` is given the bytes and whether they are text."""
    folder = site.scratch / "bodies" / peer
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for payload in payloads:
        target = folder / re.sub(r"[^\w.-]", "_", payload.name)
        target.write_bytes(make(payload.body.read_bytes(), payload.is_text))
        found.append(target)
    return found


def plain(path: str, payloads: Sequence[Payload]) -> Request:
    """The request to a server that takes a body as it is."""
    first = payloads[0]
    return Request(path, tuple(each.body for each in payloads), first.content_type, first.expect)


def as_is(answer: bytes) -> bytes:
    """The answer of a server that sends what the handler returned."""
    return answer
