"""The certificate of a server, from where the settings say it is, for every listener that speaks TLS."""

from __future__ import annotations

from pathlib import Path

from mlserve.errors import SettingError
from mlserve.settings.access import TlsSettings


def pem_pair(tls: TlsSettings) -> tuple[bytes, bytes]:
    """(certificate chain, private key) in PEM.

    Raises :class:`SettingError` that names the setting where one is missing or cannot be read.
    """
    if not (tls.certificate_file and tls.private_key_file):
        raise SettingError(
            f"tls.apis names {', '.join(tls.apis)}: set tls.certificate_file and tls.private_key_file (PEM)"
        )
    return _read("certificate_file", tls.certificate_file), _read("private_key_file", tls.private_key_file)


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"tls.{name} is {path}, which cannot be read: {error.strerror or error}") from None
