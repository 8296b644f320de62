"""``mlserve status``: what the pid file and the server itself say."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from mlserve.cli.client import UNIX, Access, Client, NotReachable, Refused
from mlserve.cli.exits import EXIT_FAILED, EXIT_NOT_RUNNING
from mlserve.cli.flags import with_settings
from mlserve.cli.pidfile import ServerInfo, find_server
from mlserve.errors import ServeError
from mlserve.settings import Settings

TIMEOUT = 5.0  # seconds per question; the server answers these from memory


@dataclass
class ModelStatus:
    """A model version as ``status`` shows it."""

    name: str
    version: str
    ready_workers: int
    workers: int


@dataclass
class Status:
    """What is known about a server. ``state`` is not running, starting, ready, not ready or not answering."""

    state: str
    pid: int | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    log_file: str = ""
    models: list[ModelStatus] = field(default_factory=list)
    spares: list[dict[str, Any]] = field(default_factory=list)  # processes that wait to become workers
    problem: str = ""

    def exit_code(self) -> int:
        """0 ready, 3 not running, else 1."""
        return {"ready": 0, "not running": EXIT_NOT_RUNNING}.get(self.state, EXIT_FAILED)


@with_settings(only=("server.pid_file", "server.host", "server.inference_port", "server.management_port"))
def status(settings: Settings, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Tell whether a server runs, whether it is ready, and what it serves.

    Exit codes: 0 ready, 1 running but not ready, 3 not running.
    """
    found = ask(settings)
    if as_json:
        document = {**vars(found), "models": [vars(model) for model in found.models]}
        typer.echo(json.dumps(document, indent=2))
    else:
        _show(found)
    raise typer.Exit(found.exit_code())


def ask(settings: Settings) -> Status:
    """Find the server, by its pid file or else at the configured addresses, and ask it."""
    info = find_server(settings).read()
    found = Status("starting", info.pid, dict(info.addresses), info.log_file) if info else Status("not running")
    if info is None:
        found.addresses = {api: _configured(settings, api) for api in ("inference", "management")}
    if "inference" not in found.addresses:
        return found
    tokens = _tokens(info.key_file) if info is not None else {}
    try:
        code, answer = _get(found.addresses["inference"], "/health/ready", tokens.get("inference", ""))
    except (NotReachable, Refused) as error:
        return _unreachable(found, info, error)
    if isinstance(answer, dict) and answer.get("type") == "InvalidKeyException":
        found.state, found.problem = "not answering", f"{found.addresses['inference']} asks for a token"
        return found
    ours = isinstance(answer, dict) and "ready" in answer
    if not ours:
        found.problem = f"{found.addresses['inference']} is answered by something else than mlserve"
        found.state = "not running" if info is None else "not answering"
        return found
    starting = info is not None and info.state == "starting"
    found.state = "ready" if code == 200 else "starting" if starting else "not ready"
    try:
        found.models, found.spares = _models(found.addresses.get("management", ""), tokens.get("management", ""))
    except (ServeError, KeyError, TypeError) as error:
        found.problem = f"the management API does not tell the models: {error}"
    return found


def _unreachable(found: Status, info: ServerInfo | None, error: Exception) -> Status:
    if info is None:
        found.addresses = {}
        return found
    found.state = "not answering"
    found.problem = str(error).partition(";")[0]  # what to do about it is for other verbs
    return found


def _models(address: str, key: str) -> tuple[list[ModelStatus], list[dict[str, Any]]]:
    """The models, and the spare workers that they share."""
    models: list[ModelStatus] = []
    spares: list[dict[str, Any]] = []
    token = ""
    while True:
        _, page = _get(address, "/models?limit=1000" + (f"&next_page_token={token}" if token else ""), key)
        for item in page["models"]:
            _, versions = _get(address, f"/models/{quote(item['modelName'])}/all", key)
            for one in versions:
                spares = one.get("spareWorkers", [])
                ready = sum(worker["status"] == "READY" for worker in one["workers"])
                models.append(ModelStatus(one["modelName"], one["modelVersion"], ready, len(one["workers"])))
        token = page.get("nextPageToken", "")
        if not token:
            return models, spares


def _get(address: str, path: str, token: str = "") -> tuple[int, Any]:
    """(status, JSON body or None).

    A server on this machine is asked at an address that its certificate need not name, so that is not checked.
    """
    with Client(address, timeout=TIMEOUT, access=Access(token, insecure=True)) as client:
        answer = client.request("GET", path)
    try:
        return answer.status, json.loads(answer.body)
    except ValueError:
        return answer.status, None


def _tokens(key_file: str) -> dict[str, str]:
    """API -> key, where this user can read them."""
    try:
        document = json.loads(Path(key_file).read_bytes()) if key_file else {}
        return {api: str(entry["key"]) for api, entry in document.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _configured(settings: Settings, api: str) -> str:
    host, port = settings.server.address(api)
    if host.startswith(UNIX):
        return host
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound to
    scheme = "https" if api in settings.tls.apis else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _show(found: Status) -> None:
    pid = f" (pid {found.pid})" if found.pid else ""
    typer.echo(f"mlserve is {found.state}{pid}")
    if found.problem:
        typer.echo(found.problem)
    for api, address in found.addresses.items() if found.state != "not running" else ():
        typer.echo(f"{api:<12} {address}")
    if found.log_file:
        typer.echo(f"{'log':<12} {found.log_file}")
    for spare in found.spares:
        what = f"pid {spare['pid']}, {spare['state']}: {', '.join(spare['packages'])}"
        typer.echo(f"{'spare':<12} {what}, {spare['memoryShare'] >> 20} MiB")
    if sys.stdout.isatty() and found.models:
        _table(found.models)
        return
    for model in found.models:
        typer.echo(f"model        {model.name} {model.version}: {model.ready_workers} of {model.workers} workers ready")


def _table(models: list[ModelStatus]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("Model", "Version", "Workers ready", header_style="bold")
    for model in models:
        color = "green" if model.ready_workers else "red"
        table.add_row(model.name, model.version, Text(f"{model.ready_workers}/{model.workers}", style=color))
    Console().print(table)
