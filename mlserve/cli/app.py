"""The shell around the verbs: which there are, and loading the one that is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mlserve import __version__
from mlserve.cli.exits import guarded

# verb -> (where its function or typer app is, its line in the help)
VERBS: dict[str, tuple[str, str]] = {
    "init": ("mlserve.cli.init:init", "Write a handler to start from."),
    "archive": ("mlserve.cli.archive:app", "Pack a model; inspect, verify, unpack and compare archives."),
    "archive-workflow": ("mlserve.cli.archive_workflow:archive_workflow", "Pack a graph of models and functions."),
    "run": ("mlserve.cli.run:run", "Run a handler on one input in this process, without a server."),
    "export": ("mlserve.cli.export:export", "Bring a torch model to another format and compare the answers."),
    "validate": ("mlserve.cli.validate:validate", "Check a model in a worker, in batches of several sizes, for CI."),
    "tune": ("mlserve.cli.tune:tune", "Find the settings that meet a latency target with the most answers."),
    "start": ("mlserve.cli.start:start", "Start a server."),
    "status": ("mlserve.cli.status:status", "Tell whether a server runs and what it serves."),
    "stop": ("mlserve.cli.stop:stop", "Stop a server; requests under way are answered first."),
    "models": ("mlserve.cli.models:app", "List, describe, register, scale and unregister a server's models."),
    "predict": ("mlserve.cli.predict:predict", "Send a request to a model."),
    "bench": ("mlserve.cli.bench:bench", "Put load on a model and tell throughput and latencies."),
    "doctor": ("mlserve.cli.doctor:doctor", "Tell what a TorchServe installation needs to run here."),
    "compat": ("mlserve.cli.shims.install:app", "Write TorchServe's commands and modules for scripts that use them."),
    "config": ("mlserve.cli.config:app", "Show the settings in effect and where each comes from."),
}


class LazyGroup(TyperGroup):
    """A group whose commands are placeholders with a help line until one is called; then its module is imported.

    Listing the verbs imports none of them, so help is quick and a broken verb cannot break another.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs, in the order of a model's life."""
        return list(VERBS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the placeholder of the verb in ``args`` by the real command."""
        if args and args[0] in VERBS:
            self.commands[args[0]] = _load(args[0])
        return super().resolve_command(ctx, args)


def _load(verb: str) -> Any:
    target, line = VERBS[verb]
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(verb)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = verb
    command.help = command.help or line
    return command


def build_app() -> typer.Typer:
    """The whole command with all verbs as placeholders."""
    app = typer.Typer(
        name="mlserve",
        cls=LazyGroup,
        help="Package models and serve them with dynamic batching.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for verb, (_, line) in VERBS.items():
        app.command(verb, help=line)(_placeholder())
    return app


def _placeholder() -> Callable[[], None]:
    def verb() -> None:
        raise AssertionError("the placeholder of a verb was called")

    return verb


def _show_version(wanted: bool) -> None:
    if wanted:
        from mlserve.build import described

        typer.echo(f"mlserve {__version__}, {described()}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", "-v", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Package models and serve them with dynamic batching."""


def run(argv: Sequence[str]) -> int:
    """Run the command line ``argv`` (without the program's name) and return its exit code."""
    return guarded(lambda: build_app()(args=list(argv), prog_name="mlserve"))
