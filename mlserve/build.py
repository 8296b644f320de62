"""Which build of mlserve this is: the same sources run interpreted or compiled in part, see setup.py."""

from importlib.util import find_spec
from pathlib import Path


def compiled() -> bool:
    """Whether what every small request goes through is compiled."""
    spec = find_spec("mlserve.core.pending")
    return spec is not None and not str(spec.origin).endswith(".py")


def described() -> str:
    """The build in words; for one that could have been compiled, with the reason why it is not."""
    if compiled():
        return "compiled"
    note = Path(__file__).with_name("not_compiled.txt")  # written when it was built
    return f"pure Python: {note.read_text(encoding='utf-8')}" if note.exists() else "pure Python"
