"""Which addresses the HTTP APIs listen on: APIs with the same address share one listener."""

from __future__ import annotations

from typing import NamedTuple

from mlserve.errors import SettingError
from mlserve.settings import Settings
from mlserve.settings.tree import UNIX


class Address(NamedTuple):
    """One listener. ``host`` may be ``unix:/path``, where ``port`` means nothing."""

    apis: tuple[str, ...]
    host: str
    port: int
    tls: bool

    @property
    def path(self) -> str:
        """Of a unix socket; empty for TCP."""
        return self.host[len(UNIX) :] if self.host.startswith(UNIX) else ""

    def __str__(self) -> str:
        return self.host if self.path else f"{self.host}:{self.port}"


def listeners(settings: Settings) -> list[Address]:
    """The addresses in the order in which they are bound.

    Raises :class:`SettingError` for APIs that cannot share their address, and for a unix socket that is to speak TLS.
    """
    apis = ["inference", "management"] + (["metrics"] if settings.metrics.enabled else [])
    found: dict[tuple[str, int], Address] = {}
    for api in apis:
        host, port = settings.server.address(api)
        tls = api in settings.tls.apis
        if host.startswith(UNIX):
            if tls:
                raise SettingError(f"tls.apis names {api}, which is on {host}: a unix socket does not speak TLS")
            if not host[len(UNIX) :].startswith("/"):
                raise SettingError(
                    f"server.host is {host}: a unix socket needs an absolute path, as in unix:/run/x.sock"
                )
            key = (host, 0)
        else:
            key = (host, port or -len(found) - 1)  # port 0 is another one each time
        before = found.get(key)
        if before is not None and before.tls != tls:
            raise SettingError(
                f"tls.apis names only one of {before.apis[0]} and {api}, which share the address {before}"
            )
        found[key] = Address((*(before.apis if before is not None else ()), api), host, port, tls)
    return list(found.values())
