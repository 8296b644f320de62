"""HTTP: the fast lane, the aiohttp applications, and what writes their answers."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def _without_authorities() -> Iterator[None]:
    """aiohttp's client, which comes with its server, makes a TLS context at import: 40 of the 210 ms that this takes,
    to read certificates of authorities that nobody asks for here (a download brings its own context). One without any
    does: it trusts nobody.
    """
    original = ssl.create_default_context

    def trusting_nobody(*_given: object, **_named: object) -> ssl.SSLContext:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    ssl.create_default_context = trusting_nobody
    try:
        yield
    finally:
        ssl.create_default_context = original


if "aiohttp.connector" not in sys.modules:
    with _without_authorities():
        import aiohttp.connector  # noqa: F401
