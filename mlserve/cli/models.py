"""``mlserve models``: the management API from the command line, flags named as its parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from mlserve.cli.client import path_of
from mlserve.cli.reaching import Server, with_server
from mlserve.cli.tables import show_table

app = typer.Typer(
    help="List, describe, register, scale and unregister a server's models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

READ_TIMEOUT = 60.0

Json = Annotated[bool, typer.Option("--json", help="Print the server's JSON.")]
Model = Annotated[str, typer.Argument(help="Name of the model.", show_default=False)]
Version = Annotated[
    str, typer.Option("--version", "-V", help="Version; default: the model's default version.", show_default=False)
]
Synchronous = Annotated[bool, typer.Option(help="Wait until the workers are ready.")]


@app.command("list")
@with_server("management")
def list_models(
    server: Server,
    limit: Annotated[int | None, typer.Option(help="Models per page, 1 to 100; prints one page only.")] = None,
    next_page_token: Annotated[str, typer.Option(help="Start of the page, from the page before.")] = "",
    as_json: Json = False,
) -> None:
    """List the models with the URL of their default version."""
    query: dict[str, object] = {}
    if limit is not None:
        query["limit"] = limit
    if next_page_token:
        query["next_page_token"] = next_page_token
    with server.client(READ_TIMEOUT) as client:
        page = client.json("GET", "/models", query)
        token = page.get("nextPageToken")
        while limit is None and token:
            following = client.json("GET", "/models", {"next_page_token": token})
            page["models"] += following["models"]
            token = following.get("nextPageToken")
        if limit is None:
            page.pop("nextPageToken", None)
    if as_json:
        _print_json(page)
        return
    if not page["models"]:
        typer.echo("no models")
        return
    show_table(("MODEL", "URL"), [(item["modelName"], item["modelUrl"]) for item in page["models"]])
    if token:
        typer.echo(f"more with --next-page-token {token}")


@app.command("describe")
@with_server("management")
def describe(
    server: Server,
    model: Model,
    version: Annotated[
        str, typer.Option("--version", "-V", help="Version, or `all`; default: the default version.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show a model's settings, its workers, why they last ended and the last lines they logged."""
    with server.client(READ_TIMEOUT) as client:
        models = client.json("GET", path_of("models", model, version))
    if as_json:
        _print_json(models)
        return
    for number, item in enumerate(models):
        if number:
            typer.echo("")
        _show_model(item)


@app.command("register")
@with_server("management")
def register(
    server: Server,
    archive: Annotated[str, typer.Argument(help="File or directory in the model store, or a URL.", show_default=False)],
    model_name: Annotated[str | None, typer.Option(help="Name; default: the archive's.", show_default=False)] = None,
    handler: Annotated[str | None, typer.Option(help="Handler; default: the archive's.", show_default=False)] = None,
    runtime: Annotated[str | None, typer.Option(help="python or python3.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Most requests in one batch.", show_default=False)] = None,
    max_batch_delay: Annotated[
        float | None, typer.Option(help="Longest wait for a batch to fill, in milliseconds.", show_default=False)
    ] = None,
    initial_workers: Annotated[int, typer.Option(help="Workers to start.")] = 1,
    response_timeout: Annotated[
        float | None, typer.Option(help="Longest time for one batch, in seconds.", show_default=False)
    ] = None,
    startup_timeout: Annotated[
        float | None, typer.Option(help="Longest time for a worker to load, in seconds.", show_default=False)
    ] = None,
    synchronous: Synchronous = True,
    as_json: Json = False,
) -> None:
    """Load a model version and start its workers."""
    parameters: dict[str, object] = {
        "url": archive,
        "model_name": model_name,
        "handler": handler,
        "runtime": runtime,
        "batch_size": batch_size,
        "max_batch_delay": max_batch_delay,
        "initial_workers": initial_workers,
        "response_timeout": response_timeout,
        "startup_timeout": startup_timeout,
        "synchronous": str(synchronous).lower(),
    }
    _change(
        server, "POST", "/models", as_json, {name: value for name, value in parameters.items() if value is not None}
    )


@app.command("scale")
@with_server("management")
def scale(
    server: Server,
    model: Model,
    min_worker: Annotated[int, typer.Option(help="Grow to this many workers.")] = 1,
    max_worker: Annotated[
        int | None, typer.Option(help="Shrink to this many workers; default: --min-worker.", show_default=False)
    ] = None,
    version: Version = "",
    synchronous: Synchronous = True,
    as_json: Json = False,
) -> None:
    """Change the number of workers; requests in progress are answered."""
    query: dict[str, object] = {"min_worker": min_worker, "synchronous": str(synchronous).lower()}
    if max_worker is not None:
        query["max_worker"] = max_worker
    _change(server, "PUT", path_of("models", model, version), as_json, query)


@app.command("set-default")
@with_server("management")
def set_default(
    server: Server,
    model: Model,
    version: Annotated[str, typer.Argument(help="Version to serve by default.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Send requests that name no version to this one."""
    _change(server, "PUT", path_of("models", model, version, "set-default"), as_json)


@app.command("unregister")
@with_server("management")
def unregister(server: Server, model: Model, version: Version = "", as_json: Json = False) -> None:
    """Answer the accepted requests, then end the workers and forget the version."""
    _change(server, "DELETE", path_of("models", model, version), as_json)


def _change(server: Server, method: str, path: str, as_json: bool, query: dict[str, object] | None = None) -> None:
    """Loading may take as long as the model's start-up timeout allows, so there is no limit on this side."""
    with server.client() as client:
        answer = client.json(method, path, query)
    if as_json:
        _print_json(answer)
    else:
        typer.echo(answer["status"])


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _show_model(model: dict[str, Any]) -> None:
    queue = model["jobQueueStatus"]
    rows = [
        ("version", model["modelVersion"] + (" (default)" if model.get("defaultVersion") else "")),
        ("state", model.get("state", "")),
        ("url", model["modelUrl"]),
        ("workers", f"{len(model['workers'])} (min {model['minWorkers']}, max {model['maxWorkers']})"),
        ("batch", f"{model['batchSize']}, {model['maxBatchDelay']} ms, {model.get('batchPolicy', 'window')}"),
        ("timeouts", f"response {model['responseTimeout']} s, start-up {model['startupTimeout']} s"),
        ("queue", f"{queue['pendingRequests']} waiting, room for {queue['remainingCapacity']}"),
    ]
    if model.get("lastError"):
        rows.append(("last error", model["lastError"]))
    show_table(("MODEL", model["modelName"]), rows)
    if settings := list(_set_by_someone(model)):
        typer.echo("")
        show_table(("SETTING", "VALUE", "FROM"), settings)
    if model["workers"]:
        typer.echo("")
        show_table(
            ("WORKER", "STATE", "PID", "DEVICE", "MEMORY", "STARTED (UTC)", "RESTARTS", "LAST EXIT"),
            [_worker_row(worker) for worker in model["workers"]],
        )
    for worker in model["workers"]:
        traceback = worker.get("traceback", "").strip()
        lines = "\n".join(worker.get("logTail", ()))
        if traceback:
            lines = lines.replace(traceback, "")  # the worker logs it too; once is enough
        for title, text in (("traceback", traceback), ("last lines", lines.strip())):
            if text:
                typer.echo(f"\nworker {worker['id']}, {title}:")
                typer.echo("\n".join(f"  {line}" for line in text.splitlines()))


def _set_by_someone(model: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The settings that somebody gave this model, as model-config.yaml calls them: key, value, and who."""
    from mlserve.archive.spec import OPTIONS

    provenance = model.get("provenance", {})
    for name, option in OPTIONS.items():
        key = "stateful" if name == "sequence_batching" else option.key
        if provenance.get(name, "default") != "default" and key in model:
            yield option.key, _value(model[key]), provenance[name]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _worker_row(worker: dict[str, Any]) -> tuple[str, ...]:
    return (
        worker["id"],
        worker.get("state", worker["status"]),
        str(worker["pid"]),
        worker.get("device", "gpu" if worker["gpu"] else "cpu"),
        f"{worker['memoryUsage'] / 1048576:.0f} MiB",
        worker["startTime"].partition(".")[0].replace("T", " "),
        str(worker.get("restarts", "")),
        worker.get("lastExit", "") or "-",
    )
