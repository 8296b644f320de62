"""One server per module, behind the ``torchserve`` command; ``--against torchserve`` takes the real one."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.drop_in import CLASS, NOOP, THEIRS, DropIn, archive, drop_in

from mlserve.compat.differences import DIFFERENCES

OPEN = {"disable_token_authorization": "true", "enable_model_api": "true", "load_models": ""}

Start = Callable[..., DropIn]


@pytest.fixture(scope="session")
def against(request: pytest.FixtureRequest) -> str:
    """``mlserve`` or ``torchserve``."""
    return str(request.config.getoption("--against"))


@pytest.fixture
def differs(against: str) -> Callable[[str], None]:
    """``differs("junk-archive")``: what follows holds for mlserve only, for a reason that the table gives."""

    def check(name: str) -> None:
        assert name in DIFFERENCES
        if against == THEIRS:
            pytest.skip(f"deliberate difference: {DIFFERENCES[name].why}")

    return check


def make_store(store: Path) -> Path:
    """The archives that most cases share. The names are those of TorchServe's own fixtures."""
    store.mkdir(parents=True, exist_ok=True)
    archive(store, "noop", NOOP, version="1.11")
    archive(store, "noopv2", NOOP, version="1.2.1", model={"modelName": "noop"})
    archive(store, "klass", CLASS)
    archive(store, "entry", NOOP.replace("handle", "answer"), handler="svc.py:answer")
    archive(store, "bare", NOOP, handler="bare_handler")
    archive(store, "nomanifest", NOOP, version=None)
    directory = store / "unpacked"
    (directory / "MAR-INF").mkdir(parents=True, exist_ok=True)
    (directory / "h.py").write_text(NOOP)
    (directory / "MAR-INF" / "MANIFEST.json").write_text(
        '{"runtime": "python", "model": {"modelName": "unpacked", "handler": "h.py"}, "archiverVersion": "0.12.0"}'
    )
    return store


@pytest.fixture(scope="module")
def start(against: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a server that lives as long as the module."""
    with ExitStack() as stack:

        def begin(
            settings: dict[str, Any] | None = None, *flags: str, store: Path | None = None, **more: Any
        ) -> DropIn:
            directory = tmp_path_factory.mktemp("server")
            given = {**OPEN, **(settings or {})}
            return stack.enter_context(
                drop_in(against, directory, store or make_store(directory / "store"), given, *flags, **more)
            )

        yield begin


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the URL at which it is served."""
    folder = tmp_path_factory.mktemp("web")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    thread.join()
    site.server_close()
