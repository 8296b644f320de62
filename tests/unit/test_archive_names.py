"""Names of archive members: what is refused, and that nothing accepted leaves the directory."""

import os
import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlserve.archive.names import NameSet, check_member_name
from mlserve.errors import ArchiveError

REFUSED = [
    "",
    "../evil",
    "a/../../evil",
    "..",
    "a/..",
    "/etc/passwd",
    "//host/share",
    "C:/windows",
    "c:evil",
    "a\\b",
    "..\\evil",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "a\x7fb",
    "a\x85b",
    "a\udc80b",
    "a//b",
    "x" * 256,
    "/".join(["abcdefgh"] * 300),
]


@pytest.mark.parametrize("name", REFUSED)
def test_dangerous_name_is_refused(name: str) -> None:
    with pytest.raises(ArchiveError):
        check_member_name(name)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("a", "a"), ("./a", "a"), ("a/./b", "a/b"), ("a/", "a"), (".", ""), ("./", ""), ("...", "..."), ("ü/é", "ü/é")],
)
def test_ordinary_name_is_kept(name: str, kept: str) -> None:
    assert check_member_name(name) == kept


@given(st.text(alphabet=st.sampled_from("ab./\\:\0C\n\u00e9"), max_size=12) | st.text(max_size=20))
@example("..\u2025/x")
def test_no_accepted_name_leaves_the_directory(name: str) -> None:
    try:
        kept = check_member_name(name)
    except ArchiveError:
        return
    path = posixpath.normpath(posixpath.join("/tmp/ab", kept))
    assert os.path.commonpath(["/tmp/ab", path]) == "/tmp/ab"
    assert "\0" not in kept
    assert "\\" not in kept
    if kept:
        assert check_member_name(kept) == kept


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "a"),
        ("Model.py", "model.py"),
        ("straße", "STRASSE"),
        ("e\u0301", "\u00e9"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("A/x", "a/y"),
    ],
)
def test_names_that_would_land_on_each_other_are_refused(first: str, second: str) -> None:
    names = NameSet(fold=True)
    names.add(first)
    with pytest.raises(ArchiveError):
        names.add(second)


def test_names_that_differ_in_case_are_read_as_two() -> None:
    names = NameSet(fold=False)
    names.add("README")
    names.add("readme")
    with pytest.raises(ArchiveError, match="twice"):
        names.add("readme")


def test_directories_may_repeat() -> None:
    names = NameSet(fold=True)
    for _ in range(2):
        names.add("a", is_dir=True)
    names.add("a/b")
    names.add("a/c/d")
    names.add("a/c", is_dir=True)
