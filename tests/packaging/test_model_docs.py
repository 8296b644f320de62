"""The table of docs/models.md claims nothing that no test shows: every link names a file and a test in it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
LINKS = re.findall(r'\]\(\.\./(tests/[^ )]+) "([^"]+)"\)', TEXT)
ROWS = [line for line in TEXT.partition("\n| format |")[2].partition("\n\n")[0].splitlines()[2:] if line]


@pytest.mark.parametrize("link", sorted(set(LINKS)), ids=str)
def test_a_link_leads_to_a_test_that_is_there(link: tuple[str, str]) -> None:
    file, name = link
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_format_s_claims_to_serve_and_to_batch_have_their_test() -> None:
    assert len(ROWS) >= 9
    for row in ROWS:
        name, serve, batch, *_ = row.strip("| ").split(" | ")
        assert "](../tests/" in serve, name
        assert "](../tests/" in batch, name


def test_needing_a_gpu_is_shown_by_tests_that_run_on_one() -> None:
    for file, _ in re.findall(r'\[needs a GPU\]\(\.\./(tests/[^ )]+) "([^"]+)"\)', TEXT):
        assert file.startswith("tests/gpu/")
        assert "pytest.mark.gpu" in (ROOT / file).read_text(encoding="utf-8")
