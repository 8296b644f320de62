"""The options by which a verb reaches a server, declared once: where it is, and what opens the door.

    @with_server("management")
    def verb(server: Server, ...) -> None:
        with server.client(timeout=60.0) as client: ...

Each option has a variable of the environment behind it, so that it need not be repeated, and a token not be shown in
the list of processes.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mlserve.cli.client import Access, Client
from mlserve.cli.declared import declared

ADDRESSES = {
    "management": ("MLSERVE_MANAGEMENT_URL", "http://127.0.0.1:8081"),
    "inference": ("MLSERVE_INFERENCE_URL", "http://127.0.0.1:8080"),
}
TOKEN_ENV, CACERT_ENV = "MLSERVE_TOKEN", "MLSERVE_CACERT"


@dataclass(frozen=True)
class Server:
    """A server that the command line names."""

    url: str
    access: Access

    def client(self, timeout: float | None = None) -> Client:
        """A client of it; ``timeout`` is in seconds, None waits for ever. Raises ``SettingError`` for a bad URL."""
        return Client(self.url, timeout=timeout, access=self.access)


def server_url(api: str, given: str = "") -> str:
    """The base URL of ``management`` or ``inference``: ``given``, else the environment's, else the default."""
    variable, default = ADDRESSES[api]
    return given or os.environ.get(variable, "") or default


def with_server(api: str) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command the options of this module and call it with ``server=``, a :class:`Server`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = [item for name, item in signature.parameters.items() if name != "server"]

        def command(**values: Any) -> None:
            url, token, cacert, insecure = (values.pop(name) for name in ("url", "token", "cacert", "insecure"))
            given = {"--url": url, "--token": token, "--cacert": cacert, "--insecure": insecure}
            named = frozenset(name for name, value in given.items() if value)
            opening = (token or os.environ.get(TOKEN_ENV, ""), cacert or os.environ.get(CACERT_ENV, ""))
            function(server=Server(server_url(api, url), Access(*opening, insecure, named)), **values)

        return declared(command, function, [*own, *_options(api)])

    return decorate


def _options(api: str) -> list[inspect.Parameter]:
    variable, default = ADDRESSES[api]
    texts = {
        "url": f"{api.capitalize()} API: http://, https:// or unix:/path; default: ${variable}, {default}.",
        "token": f"Key of that API, from the server's key file; default: ${TOKEN_ENV}.",
        "cacert": f"Certificates (PEM) to trust instead of the system's; default: ${CACERT_ENV}.",
    }
    found = [
        _parameter(name, Annotated[str, typer.Option(f"--{name}", help=text, show_default=False)], "")
        for name, text in texts.items()
    ]
    insecure = typer.Option("--insecure", help="Trust any certificate.")
    return [*found, _parameter("insecure", Annotated[bool, insecure], False)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
