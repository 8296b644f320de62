"""The certificate of the listeners, HTTP and gRPC: from two PEM files, or from a PKCS12 keystore.

Python's ``ssl`` reads PEM files only. What is in a keystore is therefore written to a temporary file, which only its
owner can read, in which the key is encrypted with a password of this moment, and which is gone before anybody connects.
"""

from __future__ import annotations

import secrets
import ssl
import tempfile
from pathlib import Path

from mlserve.errors import SettingError
from mlserve.settings.access import TlsSettings

# Python's own choice, whose security level (2) wants RSA keys of 2048 bits: level 1 wants 1024.
_CIPHERS = "ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
_JKS = b"\xfe\xed\xfe\xed"  # first bytes of Java's own format


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """For TLS 1.2 and later. Raises :class:`SettingError` for files that are missing or cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.weak_keys:
        context.set_ciphers(f"{_CIPHERS}:@SECLEVEL=1")
    if tls.certificate_file or tls.private_key_file:
        _load_pem(context, tls)
    elif tls.keystore:
        _load_keystore(context, tls)
    else:
        raise SettingError(
            f"tls.apis names {', '.join(tls.apis)}, but there is no certificate: set tls.certificate_file and "
            "tls.private_key_file, or tls.keystore"
        )
    return context


def _load_pem(context: ssl.SSLContext, tls: TlsSettings) -> None:
    for name in ("certificate_file", "private_key_file"):
        path = getattr(tls, name)
        if not path:
            raise SettingError(f"tls.{name} is not set; a PEM pair needs both files")
        if not Path(path).is_file():
            raise SettingError(f"tls.{name} is {path}, which is no file")
    try:
        # The empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(tls.certificate_file, tls.private_key_file, password="")
    except (ssl.SSLError, OSError) as error:
        raise SettingError(
            f"tls.certificate_file {tls.certificate_file} and tls.private_key_file {tls.private_key_file} cannot be "
            f"used: {error}. They must be PEM, belong together, and the key must not be encrypted"
        ) from None


def _load_keystore(context: ssl.SSLContext, tls: TlsSettings) -> None:
    kind = tls.keystore_type.upper()
    path = Path(tls.keystore)
    if not path.is_file():
        raise SettingError(f"tls.keystore is {path}, which is no file")
    data = path.read_bytes()
    if kind not in ("PKCS12", "P12", "PFX") or data.startswith(_JKS):
        raise SettingError(
            f"tls.keystore {path} is of the type {'JKS' if data.startswith(_JKS) else kind}, which only Java reads; "
            f"convert it: keytool -importkeystore -srckeystore {path} -destkeystore {path.stem}.p12 "
            "-deststoretype PKCS12, then set tls.keystore_type = PKCS12"
        )
    password = secrets.token_hex(16)
    pem = _keystore_to_pem(data, tls, password)
    with tempfile.NamedTemporaryFile(prefix="mlserve-", suffix=".pem") as file:  # mode 0600
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name, password=password)


def _keystore_to_pem(data: bytes, tls: TlsSettings, password: str) -> bytes:
    """Key (encrypted with ``password``), certificate and chain."""
    try:
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            PrivateFormat,
            pkcs12,
        )
    except ImportError:
        raise SettingError("tls.keystore needs the package cryptography: pip install 'mlserve[tls]'") from None
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(data, tls.keystore_pass.encode())
    except ValueError:
        raise SettingError(
            f"tls.keystore {tls.keystore} cannot be opened: tls.keystore_pass is wrong, or it is no PKCS12 file"
        ) from None
    if key is None or certificate is None:
        raise SettingError(f"tls.keystore {tls.keystore} has no private key with a certificate")
    encryption = BestAvailableEncryption(password.encode())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem + b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, *others))
