"""Virtual environments of models: built once, kept in a folder, shared by all models and versions that need the same.

An environment's name is the hash of the packages that its requirements amount to and where they come from, of the
interpreter, and of the server whose packages it sees behind its own. What requirements amount to is found out once and
kept as well: the same file gives the same environment on every start, without the network.

An environment is built under another name and renamed when it is done, so one that is there is whole. A file lock per
name, which the installing command inherits, lets one process build it while others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import site
import sys
import sysconfig
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

from mlserve.archive.installers import Installer, InstallFailed, Say, Sources, Stopped, run
from mlserve.archive.needs import Needs
from mlserve.errors import ErrorKind, InvalidInput, ServeError

LOCK_NAME = "requirements.lock"  # in an environment: what is in it
_PARENT = "mlserve_parent.pth"
_BUILDING = ".building"


class EnvironmentCache:
    """Environments in ``folder``. With ``offline`` only those that are there, or that wheels in archives can fill."""

    def __init__(self, folder: Path, *, offline: bool = False) -> None:
        self._folder = folder
        self._offline = offline

    @property
    def folder(self) -> Path:
        """Where environments are, in full. Raises ``OSError`` for a ``~`` of a user without a home directory."""
        try:
            return Path(os.path.abspath(self._folder.expanduser()))
        except RuntimeError as error:
            raise OSError(str(error)) from None

    def python_for(self, model: str, needs: Needs, say: Say, stop: threading.Event | None = None) -> Path:
        """The interpreter of the environment that ``needs`` amounts to, which is built if it is not there.

        ``say`` gets lines of progress. Raises :class:`InvalidInput` with the installer's own last lines, and a
        cancelled :class:`ServeError` soon after ``stop`` is set.
        """
        stop = stop or threading.Event()
        try:
            _private(self.folder)
            (self.folder / "resolved").mkdir(exist_ok=True, mode=0o700)
            pins = self._resolved(needs, say, stop)
            return self._built(needs, pins, say, stop)
        except InstallFailed as error:
            end = " ".join(line.strip() for line in error.lines[-3:])
            text = f"Model {model}: the environment for {needs.file.name} cannot be built: {end}"
            raise InvalidInput(text, detail="\n".join(error.lines)) from None
        except Stopped:
            raise ServeError(
                f"Model {model}: building its environment was cancelled", kind=ErrorKind.CANCELLED
            ) from None
        except OSError as error:
            raise InvalidInput(
                f"Model {model}: no environment can be kept in {self._folder} (models.environment_cache): {error}"
            ) from error

    def _sources(self, needs: Needs) -> Sources:
        if self._offline and not needs.wheel_folders:
            raise InstallFailed(
                [
                    f"there is none in {self.folder}, the archive holds no wheels, and models.offline (--offline) "
                    "keeps to these"
                ]
            )
        if self._offline and needs.remote:
            raise InstallFailed([f"models.offline (--offline) is on, and it names another place: {needs.remote[0]}"])
        return Sources(needs.wheel_folders, self._offline)

    def _resolved(self, needs: Needs, say: Say, stop: threading.Event) -> list[str]:
        """The packages, one a line, from the folder if the same requirements were resolved before."""
        if not needs.named:
            return []
        name = _digest(*_interpreter(), needs.digest)
        known = self.folder / "resolved" / f"{name}.txt"
        if known.is_file():
            return known.read_text(encoding="utf-8").splitlines()
        with _locked(known.with_suffix(".lock"), say, stop) as hold:
            if not known.is_file():
                sources, installer = self._sources(needs), Installer()
                say(f"resolving {needs.file.name} with {installer.name}")
                part = known.with_name(f"{name}.{secrets.token_hex(4)}.part")
                try:
                    command = installer.resolve_command(needs.file, part, sources)
                    run(command, cwd=needs.directory, say=say, stop=stop, hold=hold)
                    # The directory is another one each time an archive is unpacked; what lies there is in the digest.
                    lines = [line.replace(str(needs.directory), "") for line in installer.read_resolved(part)]
                    part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
                    os.replace(part, known)
                finally:
                    part.unlink(missing_ok=True)
            return known.read_text(encoding="utf-8").splitlines()

    def _built(self, needs: Needs, pins: list[str], say: Say, stop: threading.Event) -> Path:
        """The interpreter of the environment with just these packages."""
        name = _digest(*_interpreter(), needs.origin, *pins)
        home = self.folder / name
        if _python(home).exists():
            say(f"environment {name}: is there, in {self.folder}")
            return _python(home)
        with _locked(home.with_suffix(".lock"), say, stop) as hold:
            if _python(home).exists():
                return _python(home)
            self._sweep(name)
            shutil.rmtree(home, ignore_errors=True)  # its interpreter is gone, or it would have been taken
            part = self.folder / f"{_BUILDING}-{name}-{secrets.token_hex(4)}"
            try:
                sources, installer = self._sources(needs), Installer()
                say(f"environment {name}: building it with {installer.name}, {len(pins)} packages, in {self.folder}")
                make_environment(part, with_pip=False)
                lock = part / LOCK_NAME
                lock.write_text("".join(f"{line}\n" for line in pins if "==" in line), encoding="utf-8")
                command = installer.install_command(_python(part), needs.file, None if needs.hashed else lock, sources)
                if pins:
                    run(command, cwd=needs.directory, say=say, stop=stop, hold=hold)
                show_parent(part)  # not before: what the server has would count as installed
                _moved(part, home)
                os.rename(part, home)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        say(f"environment {name}: is ready")
        return _python(home)

    def _sweep(self, mine: str) -> None:
        """Remove what builds left that were killed: nobody holds their lock. That of ``mine`` is ours."""
        for left in self.folder.glob(f"{_BUILDING}-*-*"):
            name = left.name.split("-")[1]
            with contextlib.suppress(OSError), (self.folder / f"{name}.lock").open("a") as file:
                if name != mine:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)


def _private(folder: Path) -> None:
    """Make the folder, for its owner alone: ``mode`` of ``mkdir`` does not hold for the parents that it makes.

    Raises ``OSError`` for one in which somebody else could put what workers then run.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise OSError(f"{folder} belongs to user {found.st_uid}, not to {os.geteuid()}, who runs the server")
    if found.st_mode & 0o022:
        raise OSError(f"{folder} is writable for others than its owner: chmod go-w {folder}")


def make_environment(folder: Path, *, with_pip: bool) -> Path:
    """An empty virtual environment; returns its interpreter."""
    venv.EnvBuilder(symlinks=True, with_pip=with_pip).create(folder)
    return _python(folder)


def show_parent(folder: Path) -> None:
    """Let an environment see the server's packages behind its own.

    Not ``system_site_packages``: a server in an environment of its own would show its base interpreter's instead.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # addsitedir reads the .pth files there as well
    lines = [f"import site; site.addsitedir({path!r})" for path in _server_packages()]
    (folder / "lib" / version / "site-packages" / _PARENT).write_text("\n".join(lines) + "\n")


def _server_packages() -> list[str]:
    named = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages())
    return [path for path in dict.fromkeys(named) if Path(path).is_dir()]


def _interpreter() -> list[str]:
    """What an environment cannot be shared across."""
    return [
        str(sys.implementation.cache_tag),
        f"{sys.version_info.major}.{sys.version_info.minor}",
        sysconfig.get_platform(),
        sys.base_prefix,
        *_server_packages(),
    ]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _python(home: Path) -> Path:
    return home / "bin" / "python"


@contextlib.contextmanager
def _locked(path: Path, say: Say, stop: threading.Event) -> Iterator[int]:
    """Hold the lock ``path``; its file descriptor."""
    with path.open("a") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    say(f"waiting until another load has built the same ({path})")
                waiting = True
                if stop.wait(0.1):
                    raise Stopped from None
        yield file.fileno()


def _moved(part: Path, home: Path) -> None:
    """Put the final path into the scripts and settings that name the one it was built under."""
    old, new = str(part).encode(), str(home).encode()
    for file in (part / "pyvenv.cfg", *(part / "bin").iterdir()):
        if file.is_symlink() or not file.is_file():
            continue
        content = file.read_bytes()
        if old in content and not re.search(rb"\0", content):
            file.write_bytes(content.replace(old, new))
