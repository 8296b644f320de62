"""``mlserve --version``: a build that is not compiled says why, whichever way it came to be."""

import json
from pathlib import Path

import pytest

from mlserve import build


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds a pure mlserve; installers' records lie in another."""
    folder = tmp_path / "with space" / "mlserve"
    folder.mkdir(parents=True)
    monkeypatch.setattr(build, "PACKAGE", folder)
    monkeypatch.setattr(build, "compiled", lambda: False)
    return folder


def record(site: Path, editable: Path | None) -> None:
    """What an installer leaves of mlserve; an index's install has no URL."""
    folder = site / "mlserve-9.9.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mlserve\nVersion: 9.9\n", encoding="utf-8")
    if editable is not None:
        text = json.dumps({"url": editable.as_uri(), "dir_info": {"editable": True}})
        (folder / "direct_url.json").write_text(text, encoding="utf-8")


def test_compiled_build_gives_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compiled", lambda: True)
    assert build.described() == "compiled"


def test_reason_that_was_noted_when_it_was_built_is_told(package: Path) -> None:
    (package / "not_compiled.txt").write_text("there was no C compiler (cc)", encoding="utf-8")
    assert build.described() == "pure Python: there was no C compiler (cc)"


def test_editable_install_tells_that_it_is_one(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "site", package.parent)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert build.described() == f"pure Python: this is an editable install of {package.parent}"


@pytest.mark.parametrize("other", ["another", None])
def test_checkout_is_not_taken_for_another_install_beside_it(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str | None
) -> None:
    """Run from its folder, or with PYTHONPATH, in an environment that has an mlserve of its own."""
    record(tmp_path / "site", tmp_path / other if other else None)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert build.described() == f"pure Python: it runs straight from the sources in {package.parent}"
