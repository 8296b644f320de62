"""Archives that mean harm or are broken: refused by every way of reading, and nothing of them stays on disk."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlserve.archive import diff, inspect, pack, unpack, verify
from mlserve.archive.opening import open_archive, top_directory
from mlserve.archive.reading import Limits
from mlserve.errors import ArchiveError, ServeError

TarEdit = Callable[[tarfile.TarInfo], None]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where archives are unpacked: a folder of its own, so that anything left in or beside the target is seen."""
    path = tmp_path / "place"
    path.mkdir()
    return path


def zip_of(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_of(path: Path, members: list[tuple[str, bytes, TarEdit | None]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content, edit in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if edit is not None:
                edit(info)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def kind(code: bytes, target: str = "") -> TarEdit:
    def edit(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = code, target, 0

    return edit


def refused(archive: Path, place: Path, text: str | None = None, limits: Limits | None = None) -> None:
    """Every reader refuses ``archive``, and unpacking leaves neither a target nor a temporary directory."""
    options = {} if limits is None else {"limits": limits}
    with pytest.raises(ArchiveError, match=text):
        unpack(archive, place / "ab", **options)
    assert list(place.iterdir()) == []
    assert not verify(archive, **options).ok


NAMES = [
    "../evil",
    "a/../../evil",
    "../abc/evil",  # the sibling of the target /…/ab
    "/etc/cron.d/evil",
    "C:/evil",
    "c:evil",
    "..\\evil",
    "a\\b",
    "a\nb",
    "a\x1b]0;b",
    "a//b",
]


@pytest.mark.parametrize("name", NAMES)
def test_name_that_leaves_the_archive_or_hides(tmp_path: Path, place: Path, name: str) -> None:
    refused(zip_of(tmp_path / "a.mar", [("good", b"1"), (name, b"2")]), place, "refused")
    refused(tar_of(tmp_path / "a.tar.gz", [("m/good", b"1", None), (name, b"2", None)]), place, "refused")
    assert not (place.parent / "evil").exists()
    assert not (place / "abc").exists()


def test_nul_in_a_zip_name(tmp_path: Path, place: Path) -> None:
    """zipfile cuts names at a NUL: ``good.py\\0.txt`` would come out as ``good.py``."""
    path = zip_of(tmp_path / "a.mar", [("evil_py_x", b"1")])
    path.write_bytes(path.read_bytes().replace(b"evil_py_x", b"evil.py\0x"))
    refused(path, place, "control characters")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_zip_member_that_is_a_link_or_device(tmp_path: Path, place: Path, mode: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (mode | 0o777) << 16
    refused(zip_of(tmp_path / "a.mar", [(info, b"/etc/passwd")]), place, "links and special files")


@pytest.mark.parametrize("code", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_member_that_is_a_link_or_device(tmp_path: Path, place: Path, code: bytes) -> None:
    members: list[tuple[str, bytes, TarEdit | None]] = [
        ("m/a", b"1", None),
        ("m/link", b"", kind(code, "../../etc/passwd")),
        ("m/link/evil", b"2", None),
    ]
    refused(tar_of(tmp_path / "a.tar.gz", members), place, "links and special files")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("handler.py", "handler.py"), ("a", "a/b"), ("./a", "a")])
def test_names_that_land_on_each_other(tmp_path: Path, place: Path, names: tuple[str, str]) -> None:
    refused(zip_of(tmp_path / "a.mar", [(name, b"1") for name in names]), place, "twice")
    tarred = tar_of(tmp_path / "a.tar.gz", [(f"m/{name}", b"1", None) for name in names])
    refused(tarred, place, "twice")


def test_set_uid_and_executable_bits_do_not_survive(tmp_path: Path, place: Path) -> None:
    info = zipfile.ZipInfo("tool")
    info.external_attr = (stat.S_IFREG | 0o6777) << 16

    def set_uid(info: tarfile.TarInfo) -> None:
        info.mode = 0o6777

    archives = [
        zip_of(tmp_path / "a.mar", [(info, b"1"), ("x", b"2")]),
        tar_of(tmp_path / "a.tar.gz", [("m/tool", b"1", set_uid)]),
    ]
    for number, archive in enumerate(archives):
        mode = (unpack(archive, place / str(number)) / "tool").stat().st_mode
        assert mode & 0o7111 == 0


def test_too_many_members(tmp_path: Path, place: Path) -> None:
    names = [f"m/{number}" for number in range(20)]
    refused(zip_of(tmp_path / "a.mar", [(n, b"") for n in names]), place, "more than 19", Limits(files=19))
    tarred = tar_of(tmp_path / "a.tar.gz", [(n, b"", None) for n in names])
    refused(tarred, place, "more than 19", Limits(files=19))
    directories = tar_of(tmp_path / "b.tar.gz", [(n, b"", kind(tarfile.DIRTYPE)) for n in names])
    refused(directories, place, "more than 19", Limits(files=19))


def test_too_many_bytes(tmp_path: Path, place: Path) -> None:
    content = os.urandom(1000)
    archives = [
        zip_of(tmp_path / "a.mar", [("a", content), ("b", content)]),
        tar_of(tmp_path / "a.tar.gz", [("m/a", content, None), ("m/b", content, None)]),
    ]
    for archive in archives:
        refused(archive, place, "more than 1999 bytes", Limits(total_bytes=1999))
        unpack(archive, place / archive.name, limits=Limits(total_bytes=2000))
        for file in (place / archive.name).iterdir():
            file.unlink()
        (place / archive.name).rmdir()


def test_bomb_by_ratio(tmp_path: Path, place: Path) -> None:
    zeros = bytes(4 << 20)
    limits = Limits(ratio=100, ratio_from=1 << 20)
    packed = zip_of(tmp_path / "a.mar", [("a", zeros)], compression=zipfile.ZIP_DEFLATED)
    refused(packed, place, "times its own size", limits)
    refused(tar_of(tmp_path / "a.tar.gz", [("m/a", zeros, None)]), place, "times its own size", limits)


def test_zip_that_lies_about_its_size(tmp_path: Path, place: Path) -> None:
    """The declared size passes the limit, the data would not."""
    path = zip_of(tmp_path / "a.mar", [("a", bytes(5_000_000))], compression=zipfile.ZIP_DEFLATED)
    data = path.read_bytes().replace(struct.pack("<L", 5_000_000), struct.pack("<L", 10))
    path.write_bytes(data)
    refused(path, place)


def test_encrypted_member(tmp_path: Path, place: Path) -> None:
    path = zip_of(tmp_path / "a.mar", [("a", b"secret")])
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, place, "encrypted")


def test_huge_tar_header_is_not_read_into_memory(tmp_path: Path, place: Path) -> None:
    """tarfile reads a long name in one piece, whatever size the header declares."""
    path = tmp_path / "a.tar.gz"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1 << 20))
    refused(path, place, "tar header")


def test_data_after_the_end_of_a_tar(tmp_path: Path, place: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", [("m/a", b"1", None)])
    with gzip.open(path, "ab") as file:
        file.write(bytes(3 << 20))
    refused(path, place, "data after")


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz"])
def test_truncated_archive_leaves_nothing_on_disk(tmp_path: Path, place: Path, form: str) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(os.urandom(5000))
    archive = pack(
        model_name="m",
        version="1",
        handler="base_handler",
        serialized_file=weights,
        archive_format=form,
        export_path=tmp_path,
    )
    whole = archive.read_bytes()
    for length in (0, 1, 3, 20, 100, 1000, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        archive.write_bytes(whole[:length])
        refused(archive, place)
    archive.write_bytes(whole)
    assert unpack(archive, place / "ab").is_dir()


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz"])
def test_no_flipped_byte_is_served(tmp_path: Path, place: Path, form: str) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"0123456789" * 50)
    archive = pack(
        model_name="m",
        version="1",
        handler="base_handler",
        serialized_file=weights,
        archive_format=form,
        export_path=tmp_path,
    )
    whole = archive.read_bytes()
    for position in range(0, len(whole), 7):
        archive.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            target = unpack(archive, place / str(position))
        except ArchiveError:
            assert list(place.iterdir()) == []
            continue
        assert (target / "weights.pt").read_bytes() == weights.read_bytes()
        for file in sorted(target.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        target.rmdir()


def test_member_that_is_not_what_the_manifest_lists(tmp_path: Path, place: Path) -> None:
    """The zip's own CRC agrees, the SHA-256 does not: somebody replaced a file."""
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"good")
    archive = pack(model_name="m", version="1", handler="base_handler", serialized_file=weights, export_path=tmp_path)
    with zipfile.ZipFile(archive) as source:
        manifest = source.read("MAR-INF/MANIFEST.json")
    changed = zip_of(tmp_path / "b.mar", [("MAR-INF/MANIFEST.json", manifest), ("weights.pt", b"evil")])
    refused(changed, place, "SHA-256")
    removed = zip_of(tmp_path / "c.mar", [("MAR-INF/MANIFEST.json", manifest)])
    refused(removed, place, "missing")
    added = zip_of(tmp_path / "d.mar", [("MAR-INF/MANIFEST.json", manifest), ("weights.pt", b"good"), ("extra", b"1")])
    assert [problem.member for problem in verify(added).problems] == ["extra"]


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"PK\x03\x04", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(50), bytes(2000)]
)
def test_junk_is_no_archive(tmp_path: Path, place: Path, content: bytes) -> None:
    path = tmp_path / "junk.mar"
    path.write_bytes(content)
    refused(path, place, r"junk\.mar")
    with pytest.raises(ArchiveError):
        inspect(path)
    with pytest.raises(ArchiveError):
        diff(path, path)


def test_missing_file_and_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="gone"):
        inspect(tmp_path / "gone.mar")
    with pytest.raises(ArchiveError, match="not found"):
        verify(tmp_path / "gone.mar")
    with pytest.raises(ArchiveError, match="directory"):
        unpack(tmp_path, tmp_path / "target")


def test_unpacking_into_something_is_refused(tmp_path: Path, place: Path) -> None:
    archive = zip_of(tmp_path / "a.mar", [("a", b"1"), ("b", b"2")])
    (place / "mine").write_text("x")
    with pytest.raises(ArchiveError, match="not empty"):
        unpack(archive, place)
    assert [path.name for path in place.iterdir()] == ["mine"]


def test_full_disk_leaves_nothing(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zip_of(tmp_path / "a.mar", [("a", b"1")])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ServeError, match="No space left") as error:
        unpack(archive, place / "ab")
    assert not isinstance(error.value, ArchiveError)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "top"),
    [
        (["m/a", "m/b/c"], "m/"),
        (["m/a", "n/b"], ""),
        (["m/a", "b"], ""),
        (["MAR-INF/MANIFEST.json"], ""),
        (["m/MAR-INF/MANIFEST.json"], "m/"),
        ([], ""),
    ],
)
def test_top_directory(names: list[str], top: str) -> None:
    assert top_directory(names) == top


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=600), head=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08\0"]), wrap=st.booleans())
def test_any_bytes_are_read_or_refused_with_an_archive_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes, wrap: bool
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.mar"
    path.write_bytes(gzip.compress(data) if wrap else head + data)
    try:
        with open_archive(path) as reader:
            for _, content in reader.walk():
                for _ in content:
                    pass
    except ArchiveError:
        pass


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_change_of_a_tar_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    tar_of(folder / "a.tar.gz", [("m/a", b"1", None), ("m/" + "x" * 120, b"2", None)])
    data = bytearray(gzip.decompress((folder / "a.tar.gz").read_bytes()))
    for position, value in edits:
        data[position] = value
    for start in (0, 1024):  # keep checksums right, so that what follows is looked at
        data[start + 148 : start + 156] = b"        "
        data[start + 148 : start + 156] = b"%06o\0 " % (sum(data[start : start + 512]) & 0o777777)
    path = folder / "b.tar.gz"
    path.write_bytes(gzip.compress(bytes(data)))
    try:
        unpack(path, folder / "out")
    except ArchiveError:
        assert not (folder / "out").exists()
    assert {entry.name for entry in folder.iterdir()} <= {"a.tar.gz", "b.tar.gz", "out"}
