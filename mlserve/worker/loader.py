"""Finds and loads the handler that a model names.

``module[:name]``; ``.py`` is dropped and a path counts by its base name. Looked for, in this order:

1. in the model's directory, by file: it wins over an installed module of the same name, even over one imported already;
2. among the built-in handlers, ``mlserve.handlers.<name>``;
3. anywhere on ``sys.path``, for handlers that are installed as a package.

A module holds a function ``handle`` (or the one named after the colon), or exactly one class with ``handle``.

A function is called once at load as ``fn(None, context)``, so that it can load its model. Functions that know nothing
of this fail on the ``None``: an AttributeError or TypeError that speaks of ``NoneType`` is logged and loading goes on;
any other exception is a failure to load.
"""

from __future__ import annotations

import copy
import gc
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from mlserve.handler import Context
from mlserve.worker.failures import describe
from mlserve.worker.signatures import signature_of

log = logging.getLogger("mlserve.worker")
BUILTIN = "mlserve.handlers"


class LoadError(Exception):
    """The handler cannot be found or has no single entry point."""


class MissingPackage(ModuleNotFoundError):
    """A package that a built-in handler imports is not installed. ``handler`` is its name."""

    handler = ""


class Entry:
    """A loaded handler: ``call(data, context)``, name and signature for ``describe``, what it asks of the server.

    ``ahead(data, context)`` preprocesses a batch in any thread and returns what answers it; None = it can't be done.
    ``another(context)`` makes a ``call`` for a thread, which shares what was loaded; None = ``call`` itself is as good.
    """

    __slots__ = ("accepts_views", "ahead", "another", "call", "name", "signature")

    def __init__(
        self,
        call: Callable[[Any, Context], Any],
        name: str,
        accepts_views: bool = False,
        signature: Mapping[str, Any] | None = None,
        ahead: Callable[[Any, Context], Callable[[], Any]] | None = None,
        another: Callable[[Context], Callable[[Any, Context], Any]] | None = None,
    ) -> None:
        self.call = call
        self.another = another
        self.ahead = ahead
        self.name = name
        self.accepts_views = accepts_views
        self.signature = dict(signature or {})

    def for_thread(self, context: Context) -> Entry:
        """The same for a thread whose context is ``context``."""
        if self.another is None:
            return self
        return Entry(self.another(context), self.name, self.accepts_views, self.signature, self.ahead)


def load(handler: str, model_dir: str, context: Context, run: Callable[[Any], Any], envelope: str = "") -> Entry:
    """Import ``handler`` and initialize it. ``run`` finishes a result that may be a coroutine.

    ``envelope`` names the form that requests come in (``mlserve.handlers.envelopes``); the handler gets what is inside.
    Raises :class:`LoadError`, or whatever the handler's own code raises.
    """
    module_name, _, wanted = handler.partition(":")
    if not module_name:
        raise LoadError("The model names no handler; set one with `mlserve archive --handler`")
    if model_dir:
        importlib.invalidate_caches()  # the directory may have been unpacked a moment ago
        sys.path[:] = [model_dir, *(entry for entry in sys.path if entry != model_dir)]
    try:
        module = find_module(module_name, model_dir)
    except MissingPackage as error:
        raise ImportError(_install(error, model_dir, context)) from error
    gc.freeze()  # what was imported stays; of torch alone, looking it through takes 0.12 s, three times while it serves
    entry = _entry(module, wanted, context, run)
    if envelope:
        enclosed = importlib.import_module(f"{BUILTIN}.envelopes").enclosed
        call, another = entry.call, entry.another or (lambda context: entry.call)
        return Entry(
            enclosed(envelope, call), entry.name, entry.accepts_views, entry.signature,
            another=lambda context: enclosed(envelope, another(context)),
        )  # fmt: skip
    return entry


def _entry(module: ModuleType, wanted: str, context: Context, run: Callable[[Any], Any]) -> Entry:
    """The function or class called ``wanted``, else the only class: TorchServe takes that one too."""
    target = getattr(module, wanted or "handle", None)
    if isinstance(target, type):
        return _from_class(target, context, run)
    if callable(target):
        return _from_function(target, f"{module.__name__}:{wanted or 'handle'}", context, run)
    if not wanted:
        return _from_class(the_class(module), context, run)
    try:
        only = the_class(module)
    except LoadError:
        raise LoadError(
            f"Handler module {module.__name__} ({_place(module)}) has no function or class {wanted!r}"
        ) from None
    log.warning("%s has no function or class %r; taking its class %s", module.__name__, wanted, only.__name__)
    return _from_class(only, context, run)


def find_module(name: str, model_dir: str) -> ModuleType:
    """Import the handler module. Raises :class:`LoadError` when there is none by that name."""
    path = PurePosixPath(name)
    stem = path.name.removesuffix(".py")
    if model_dir:
        for candidate in (stem, str(path).removesuffix(".py")):
            file = _module_file(Path(model_dir), candidate)
            if file is not None:
                return _from_file(file, candidate.replace("/", "."))
    aliases: dict[str, str] = importlib.import_module(BUILTIN).ALIASES
    for full in (f"{BUILTIN}.{aliases.get(stem, stem)}", stem):
        try:
            return importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name is None or not (full == error.name or full.startswith(error.name + ".")):
                if not full.startswith(f"{BUILTIN}."):
                    raise  # the handler is there, something it imports is not
                missing = MissingPackage(*error.args, name=error.name)
                missing.handler = full.removeprefix(f"{BUILTIN}.")
                raise missing from error
    raise LoadError(
        f"No handler {name!r}: there is no {stem}.py in the model's directory {model_dir or '(none)'}, "
        f"no built-in handler and no installed module of that name"
    )


def _install(error: MissingPackage, model_dir: str, context: Context) -> str:
    """What to say of a package that a built-in handler lacks: the line that installs all that it and the model need."""
    model = ((context.manifest or {}).get("model") or {}).get("serializedFile") or ""
    runtime = str((context.model_yaml_config or {}).get("runtime") or "")
    extra = importlib.import_module(BUILTIN).extra_of(error.handler, Path(model_dir, model), runtime)
    shown = f"{model or 'The handler'} needs the package {error.name}"
    return f"{shown}: pip install 'mlserve[{extra}]' ({error})"


def _module_file(folder: Path, name: str) -> Path | None:
    parts = name.split(".") if "/" not in name else name.split("/")
    base = folder.joinpath(*parts)
    for file in (base.with_name(base.name + ".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


def _from_file(file: Path, name: str) -> ModuleType:
    """Import ``file`` as ``name``; under a private name where ``name`` is taken by a module from elsewhere."""
    known = sys.modules.get(name)
    if known is not None and not _same_file(known, file):
        name = "mlserve_model_" + name.replace(".", "_")
    elif "." in name or file.name == "__init__.py":
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"{file} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _same_file(module: ModuleType, file: Path) -> bool:
    known = getattr(module, "__file__", None)
    return known is not None and Path(known).resolve() == file.resolve()


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", "built in"))


def the_class(module: ModuleType) -> type:
    """The one class of the module that can handle requests. Raises :class:`LoadError` when it is not one."""
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    candidates = [cls for cls in own if callable(getattr(cls, "handle", None))]
    complete = [cls for cls in candidates if callable(getattr(cls, "initialize", None))]
    candidates = complete or candidates
    leaves = [cls for cls in candidates if not any(cls in other.__mro__[1:] for other in candidates)]
    if len(leaves) == 1:
        return leaves[0]
    where = f"{module.__name__} ({_place(module)})"
    if leaves:
        names = ", ".join(cls.__name__ for cls in leaves)
        raise LoadError(
            f"Handler module {where} has more than one handler class: {names}; "
            f"name one as {module.__name__}:{leaves[0].__name__}"
        )
    raise LoadError(
        f"Handler module {where} has no function handle(data, context) and no class with initialize() and handle()"
        + (f"; it has {', '.join(cls.__name__ for cls in own)}" if own else "")
    )


def _from_class(cls: type, context: Context, run: Callable[[Any], Any]) -> Entry:
    name = f"{cls.__module__}.{cls.__name__}"
    if not callable(getattr(cls, "handle", None)):
        raise LoadError(f"Handler class {name} has no method handle(data, context)")
    instance = cls()
    initialize = getattr(instance, "initialize", None)
    if initialize is not None:
        run(initialize(context))
    views, ahead = bool(getattr(instance, "accepts_views", False)), getattr(instance, "ahead", None)
    ahead = ahead if callable(ahead) else None

    def another(own: Context) -> Callable[[Any, Context], Any]:
        made = copy.copy(instance)
        for name, value in list(getattr(made, "__dict__", {}).items()):
            if value is context:  # as many keep it from initialize(): each thread asks about its own requests
                setattr(made, name, own)
        handle: Callable[[Any, Context], Any] = made.handle
        return handle

    return Entry(instance.handle, name, views, signature_of(instance), ahead, another)


def _from_function(function: Callable[..., Any], name: str, context: Context, run: Callable[[Any], Any]) -> Entry:
    try:
        result = function(None, context)
        if hasattr(result, "__await__"):
            run(result)
    except (AttributeError, TypeError) as error:
        if "NoneType" not in str(error):
            raise
        log.warning(
            "%s was called with data=None to load its model, as handlers of this form are, and does not expect that "
            "(%s). Return early when data is None, or use a class with initialize().",
            name,
            describe(error),
        )
    return Entry(function, name, bool(getattr(function, "accepts_views", False)))
