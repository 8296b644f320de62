"""Tokens: who is let in, what the key file holds, and who can read it."""

import json
import os
import re
import stat
from pathlib import Path

import pytest

from mlserve.errors import InvalidToken, ServeError
from mlserve.protocols.tokens import TokenGuard
from mlserve.settings.access import AuthSettings

MINUTE = 60_000_000_000


class Now:
    """A clock in nanoseconds that only the test moves."""

    def __init__(self) -> None:
        self.value = 1_700_000_000_123_456_789

    def __call__(self) -> int:
        return self.value


def made(tmp_path: Path, minutes: float = 60.0) -> tuple[TokenGuard, Now, Path]:
    now, path = Now(), tmp_path / "key_file.json"
    guard = TokenGuard(AuthSettings(tokens=True, token_expiration_min=minutes, key_file=str(path)), now)
    guard.write()
    return guard, now, path


def bearer(path: Path, name: str) -> bytes:
    return b"Bearer " + json.loads(path.read_text())[name]["key"].encode()


@pytest.mark.parametrize("api", ["inference", "management"])
def test_right_key_passes(tmp_path: Path, api: str) -> None:
    guard, _, path = made(tmp_path)
    guard.check(api, bearer(path, api))


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Bearer abcd1234", b"Basic abcd1234", b"Bearer \xff\xfe", b"abcd1234"]
)
def test_anything_else_is_refused(tmp_path: Path, value: bytes) -> None:
    guard, _, _ = made(tmp_path)
    with pytest.raises(InvalidToken, match=r"^Token Authorization failed\. Token either incorrect, expired, or not"):
        guard.check("inference", value)


@pytest.mark.parametrize(("api", "other"), [("inference", "management"), ("management", "inference")])
def test_key_of_another_api_is_refused(tmp_path: Path, api: str, other: str) -> None:
    guard, _, path = made(tmp_path)
    for wrong in (other, "API"):
        with pytest.raises(InvalidToken):
            guard.check(api, bearer(path, wrong))


def test_right_key_with_a_tail_is_refused(tmp_path: Path) -> None:
    guard, _, path = made(tmp_path)
    key = bearer(path, "inference")
    for wrong in (key + b"x", key[:-1], key + b" ", key + b"\n", key.replace(b"Bearer", b"bearer"), key * 2):
        with pytest.raises(InvalidToken):
            guard.check("inference", wrong)


def test_key_expires(tmp_path: Path) -> None:
    guard, now, path = made(tmp_path, minutes=0.25)
    now.value += MINUTE // 4 - 1
    guard.check("inference", bearer(path, "inference"))
    now.value += 1
    with pytest.raises(InvalidToken):
        guard.check("inference", bearer(path, "inference"))
    guard.renew("inference", bearer(path, "API"))  # the key for renewals never expires
    guard.check("inference", bearer(path, "inference"))


@pytest.mark.parametrize(("kind", "other"), [("inference", "management"), ("management", "inference")])
def test_renewal_replaces_that_key_and_no_other(tmp_path: Path, kind: str, other: str) -> None:
    guard, _, path = made(tmp_path)
    old, kept, api = bearer(path, kind), bearer(path, other), bearer(path, "API")
    guard.renew(kind, api)
    assert (bearer(path, other), bearer(path, "API")) == (kept, api)
    guard.check(kind, bearer(path, kind))
    guard.check(other, kept)
    with pytest.raises(InvalidToken):
        guard.check(kind, old)


def test_renewal_needs_the_api_key_and_a_kind(tmp_path: Path) -> None:
    guard, _, path = made(tmp_path)
    before = path.read_bytes()
    wrong = [
        ("inference", b""),
        ("inference", bearer(path, "inference")),
        ("management", bearer(path, "management")),
        ("", bearer(path, "API")),
        ("API", bearer(path, "API")),
        ("INFERENCE", bearer(path, "API")),
    ]
    for kind, value in wrong:
        with pytest.raises(InvalidToken, match=r"^Token Authentication failed\. "):
            guard.renew(kind, value)
    assert path.read_bytes() == before


def test_key_file_has_the_layout_that_clients_parse(tmp_path: Path) -> None:
    _, _, path = made(tmp_path, minutes=60)
    text = path.read_text()
    keys = re.findall(r'"key": "([A-Za-z0-9_-]{8})"', text)
    assert len(set(keys)) == 3
    moment = "2023-11-14T23:13:20.123456789Z"
    first, second, third = keys
    assert text.splitlines() == [
        "{",
        '  "management": {',
        f'    "key": "{first}",',
        f'    "expiration time": "{moment}"',
        "  },",
        '  "inference": {',
        f'    "key": "{second}",',
        f'    "expiration time": "{moment}"',
        "  },",
        '  "API": {',
        f'    "key": "{third}"',
        "  }",
        "}",
    ]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_the_owner_can_read_the_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        guard, _, path = made(tmp_path)
        guard.renew("inference", bearer(path, "API"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_readable_file_that_was_there_is_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    path.write_text("old")
    path.chmod(0o644)
    spy = path.open()  # whoever has it open already must not see the keys
    made(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with spy:
        assert spy.read() == "old"


def test_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "key_file.json").symlink_to(target)
    _, _, path = made(tmp_path)
    assert not path.is_symlink()
    assert target.read_text() == "precious"


def test_file_is_removed_but_not_the_one_of_another_server(tmp_path: Path) -> None:
    first, _, path = made(tmp_path)
    second, _, _ = made(tmp_path)
    first.remove()
    second.check("inference", bearer(path, "inference"))
    second.remove()
    assert list(tmp_path.iterdir()) == []
    second.remove()


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    guard = TokenGuard(AuthSettings(tokens=True, key_file=str(tmp_path / "nowhere" / "keys.json")))
    with pytest.raises(OSError, match=r"auth\.key_file: .*nowhere"):
        guard.write()


def test_old_key_stays_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    guard, _, path = made(tmp_path)
    old, api = bearer(path, "inference"), bearer(path, "API")
    path.unlink()
    path.mkdir()
    with pytest.raises(ServeError, match=r"auth\.key_file"):
        guard.renew("inference", api)
    guard.check("inference", old)
    assert list(tmp_path.iterdir()) == [path]
