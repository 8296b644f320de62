"""Two models share an environment if, and only if, their requirements and the files that these name are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlserve.archive.needs import Needs, read_needs
from mlserve.errors import InvalidInput


def needs(directory: Path, text: str, **files: str) -> Needs:
    directory.mkdir(exist_ok=True)
    for name, content in {"requirements.txt": text, **files}.items():
        path = directory / name.replace("__", "/").replace("_txt", ".txt").replace("_whl", ".whl")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return read_needs(directory, "requirements.txt")


def test_comments_blank_lines_and_the_place_make_no_difference(tmp_path: Path) -> None:
    one = needs(tmp_path / "a", "numpy>=2  # for arrays\n\n# more\nsix\n")
    other = needs(tmp_path / "b", "numpy>=2\nsix")
    assert (one.digest, one.origin) == (other.digest, "")
    assert one.digest != needs(tmp_path / "c", "numpy>=2").digest


@pytest.mark.parametrize(
    "text",
    [
        "./own_whl",
        "own @ file:own_whl",
        "-r more_txt",
        "-c more_txt",
        "--requirement=more_txt",
        "./lib",
        "./lib[extra]",
    ],
)
def test_the_content_of_a_file_that_is_named_counts(tmp_path: Path, text: str) -> None:
    text = text.replace("_txt", ".txt").replace("_whl", ".whl")
    content = {"own_whl": "1", "more_txt": "six==1", "lib__code": "1"}
    first = needs(tmp_path / "a", text, **content)
    assert needs(tmp_path / "b", text, **content).digest == first.digest
    changed = {name: f"{value}0" for name, value in content.items()}
    assert needs(tmp_path / "c", text, **changed).digest != first.digest


@pytest.mark.parametrize("line", ["-r other.txt", "-cother.txt", "--requirement=other.txt", "--constraint 'other.txt'"])
def test_a_file_included_from_a_folder_is_not_looked_for_in_the_root(tmp_path: Path, line: str) -> None:
    def digest(name: str, wanted: str) -> str:
        return needs(tmp_path / name, "-r sub/base.txt", sub__base_txt=line, sub__other_txt=wanted).digest

    assert digest("a", "six==1") == digest("b", "six==1") != digest("c", "six==2")


def test_a_file_included_from_a_folder_may_lie_above_it_but_not_outside_the_model(tmp_path: Path) -> None:
    def digest(name: str, line: str, above: str) -> str:
        (tmp_path / "above.txt").write_text(above)
        return needs(tmp_path / name, "-r sub/base.txt", sub__base_txt=line, above_txt=above).digest

    assert digest("a", "-r ../above.txt", "six==1") != digest("b", "-r ../above.txt", "six==2")
    assert digest("c", "-r ../../above.txt", "six==1") == digest("d", "-r ../../above.txt", "six==2")


def test_what_a_build_leaves_in_a_project_does_not_count(tmp_path: Path) -> None:
    first = needs(tmp_path / "a", "./lib", lib__code="1")
    (tmp_path / "a" / "lib" / "build").mkdir()
    (tmp_path / "a" / "lib" / "build" / "code").touch()
    assert needs(tmp_path / "a", "./lib", lib__code="1").digest == first.digest


def test_files_that_include_each_other_and_names_that_lead_out_are_no_trap(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("1")
    one = needs(tmp_path / "a", "-r more.txt\n-r ../secret.txt\nsix", more_txt="-r requirements.txt")
    (tmp_path / "secret.txt").write_text("2")
    assert (
        needs(tmp_path / "b", "-r more.txt\n-r ../secret.txt\nsix", more_txt="-r requirements.txt").digest == one.digest
    )


def test_hashes_indexes_and_addresses_are_seen(tmp_path: Path) -> None:
    assert needs(tmp_path / "a", "six==1 --hash=sha256:00").hashed
    assert needs(tmp_path / "b", "six==1 --hash=sha256:00").origin != needs(tmp_path / "c", "six==1").origin
    index = needs(tmp_path / "d", "--index-url https://127.0.0.1/simple\nsix")
    assert (index.remote, bool(index.origin)) == ((), True)
    lines = ("x @ https://127.0.0.1/x.whl", "y @ git+ssh://127.0.0.1/y", "-f http://127.0.0.1/")
    assert needs(tmp_path / "e", "\n".join([*lines, "z @ file:///z.whl", "six"])).remote == lines


def test_wheels_in_the_root_and_in_their_folder_are_found(tmp_path: Path) -> None:
    assert needs(tmp_path / "a", "six").wheel_folders == ()
    found = needs(tmp_path / "a", "six", own_whl="1", wheels__other_whl="2")
    assert found.wheel_folders == (tmp_path / "a", tmp_path / "a" / "wheels")


@pytest.mark.parametrize("line", ["-e .", "--editable ./lib", "  -e git+https://127.0.0.1/x"])
def test_an_editable_line_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidInput, match="without --editable"):
        needs(tmp_path / "a", line)
