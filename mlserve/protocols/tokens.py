"""Tokens that callers of the inference and management APIs must send, and the file that the operator reads them from.

Each API has a key that expires; a third key, which does not, buys new ones on the management port. The file has
TorchServe's layout, because its clients parse it. Nobody but its owner can read it at any moment: it is written under
a random name, made with mode 0600, and takes its place by a rename, which also replaces a planted link instead of
following it. HTTP and gRPC doors hand in the raw header value, so the rules are in one place:

    guard = TokenGuard(settings.auth)
    guard.write()                                  # at start; raises OSError
    guard.check("inference", b"Bearer AbCd1234")   # before routing; raises InvalidToken
    guard.renew("management", b"Bearer <API key>")
    guard.remove()                                 # at stop
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from mlserve.errors import InvalidToken, ServeError
from mlserve.settings.access import AuthSettings

log = logging.getLogger(__name__)

REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
NOT_RENEWED = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"
APIS = ("management", "inference")  # in the order of the file

_BEARER = re.compile(rb"Bearer\s+(\S+)")
_KEY_BYTES = 6  # 8 characters of base64: the length that TorchServe's scripts know


class _Key(NamedTuple):
    """A key and the nanosecond since the epoch from which on it is worth nothing."""

    text: str
    expires: int


class TokenGuard:
    """The keys of one server. ``now`` gives nanoseconds since the epoch."""

    def __init__(self, settings: AuthSettings, now: Callable[[], int] = time.time_ns) -> None:
        self._path = Path(settings.key_file).absolute()
        self._lifetime = int(settings.token_expiration_min * 60e9)
        self._now = now
        self._api_key = _new_key()
        self._keys = {api: self._fresh() for api in APIS}

    def check(self, api: str, value: bytes) -> None:
        """Let a request of ``inference`` or ``management`` pass, or raise :class:`InvalidToken`.

        ``value`` is the ``Authorization`` header as it came, empty where there was none.
        """
        key = self._keys[api]
        if not _matches(value, key.text) or self._now() >= key.expires:
            raise InvalidToken(REFUSED)

    def renew(self, kind: str, value: bytes) -> None:
        """Replace the key of the API ``kind``; ``value`` must hold the key for renewals.

        Raises :class:`InvalidToken`, also for a ``kind`` that there is not, and :class:`ServeError` if the file cannot
        be written; the old key stays good then.
        """
        if not _matches(value, self._api_key) or kind not in APIS:
            raise InvalidToken(NOT_RENEWED)
        keys = {**self._keys, kind: self._fresh()}
        try:
            self._save(keys)
        except OSError as error:
            log.error("cannot write auth.key_file: %s", error)
            raise ServeError(f"The new key was not made: auth.key_file cannot be written: {error.strerror}") from error
        self._keys = keys
        log.info("the %s key is a new one", kind)

    def write(self) -> None:
        """Put the keys into the file ``auth.key_file``. Raises OSError that names the setting."""
        try:
            self._save(self._keys)
        except OSError as error:
            raise OSError(
                f"auth.key_file: {self._path} cannot be written: {error.strerror or error}; "
                "choose another place, or ask for no tokens (auth.tokens = false)"
            ) from None
        log.info("callers need a token; the keys are in %s", self._path)

    def remove(self) -> None:
        """Remove the file, unless another server has written its own keys there meanwhile."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(self._path.read_bytes())["API"]["key"] == self._api_key:
                self._path.unlink()

    def _fresh(self) -> _Key:
        return _Key(_new_key(), self._now() + self._lifetime)

    def _save(self, keys: dict[str, _Key]) -> None:
        content: dict[str, dict[str, str]] = {
            api: {"key": keys[api].text, "expiration time": _instant(keys[api].expires)} for api in APIS
        }
        content["API"] = {"key": self._api_key}
        part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(file, "w", encoding="ascii") as stream:
                os.fchmod(file, 0o600)  # an odd umask must not take the owner's own rights
                stream.write(json.dumps(content, indent=2))
            os.replace(part, self._path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _new_key() -> str:
    return secrets.token_urlsafe(_KEY_BYTES)


def _matches(value: bytes, key: str) -> bool:
    """Compared in constant time: how long it takes tells nothing about how much of a guess is right."""
    sent = _BEARER.fullmatch(value)
    return hmac.compare_digest(sent[1] if sent else b"", key.encode("ascii"))


def _instant(nanoseconds: int) -> str:
    """ISO 8601 in UTC with nanoseconds, ``2026-11-21T08:03:23.004000000Z``."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, tz=timezone.utc):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
