"""Which build of mlserve this is: the same sources run interpreted or compiled in part, see setup.py."""

import json
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

PACKAGE = Path(__file__).resolve().parent


def compiled() -> bool:
    """Whether what every small request goes through is compiled."""
    spec = find_spec("mlserve.core.pending")
    return spec is not None and not str(spec.origin).endswith(".py")


def described() -> str:
    """The build in words; for a pure one with the reason why it is not compiled."""
    return "compiled" if compiled() else f"pure Python: {_reason(PACKAGE)}"


def _reason(package: Path) -> str:
    note = package / "not_compiled.txt"  # written when it was built
    if note.exists():
        return note.read_text(encoding="utf-8")
    if package.parent in _editable():
        return f"this is an editable install of {package.parent}"
    return f"it runs straight from the sources in {package.parent}"


def _editable() -> list[Path]:
    """The folders of which there is an editable install, from what the installer wrote of it (PEP 610)."""
    records = [json.loads(found.read_text("direct_url.json") or "{}") for found in distributions(name="mlserve")]
    urls = [record["url"] for record in records if record.get("dir_info", {}).get("editable")]
    return [Path(url2pathname(urlsplit(url).path)).resolve() for url in urls]
