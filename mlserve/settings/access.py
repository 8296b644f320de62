"""Who may reach the server and how: TLS, tokens, and what browsers are told."""

from __future__ import annotations

from dataclasses import dataclass

from mlserve.settings.option import option


@dataclass(frozen=True)
class TlsSettings:
    """Transport encryption. A PEM pair, or a PKCS12 keystore, serves every API of `tls.apis`."""

    apis: tuple[str, ...] = option(
        (), "APIs that speak TLS: `inference`, `management`, `metrics`, `grpc_inference`, `grpc_management`."
    )
    certificate_file: str = option("", "PEM file with the certificate chain.", torchserve="certificate_file")
    private_key_file: str = option("", "PEM file with the private key.", torchserve="private_key_file")
    keystore: str = option("", "Keystore file, instead of the two PEM files.", torchserve="keystore")
    keystore_pass: str = option("changeit", "Password of the keystore.", torchserve="keystore_pass", secret=True)
    keystore_type: str = option("PKCS12", "Kind of the keystore.", torchserve="keystore_type")
    weak_keys: bool = option(
        False, "Take certificates that OpenSSL refuses by default, with RSA keys of 1024 bits for one."
    )


@dataclass(frozen=True)
class AuthSettings:
    """Tokens that callers of the inference and management APIs must send."""

    tokens: bool = option(False, "Ask callers for a token, made at start.", flag="--tokens")
    token_expiration_min: float = option(
        60.0, "How long a token is good.", low=0.001, unit="min", torchserve="token_expiration_min"
    )
    key_file: str = option("key_file.json", "File that the tokens are written to, readable by its owner only.")


@dataclass(frozen=True)
class CorsSettings:
    """`access-control-allow-*` headers of every HTTP answer; none is sent while `cors.allowed_origin` is empty."""

    allowed_origin: str = option("", "`access-control-allow-origin`.", torchserve="cors_allowed_origin")
    allowed_methods: str = option("", "`access-control-allow-methods`.", torchserve="cors_allowed_methods")
    allowed_headers: str = option("", "`access-control-allow-headers`.", torchserve="cors_allowed_headers")
