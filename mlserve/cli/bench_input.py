"""From what ``mlserve bench`` was given to a :class:`Target`: where a model is found, which files make which
requests."""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlserve.cli.client import Access
from mlserve.cli.reaching import server_url
from mlserve.errors import SettingError
from mlserve.load.target import (
    DEFAULT_PORTS,
    GRPC,
    GRPC_STREAM,
    METHODS,
    PROTOCOLS,
    REST,
    V2,
    Payload,
    Target,
    is_address,
    model_path,
    split_url,
)

STDOUT = "-"
KEY = "data"


def check_writable(option: str, file: str) -> None:
    """Before anything is measured: raises :class:`SettingError` for a file that could not be written afterwards. An
    empty name is none, and :data:`STDOUT` standard output."""
    path = Path(file)
    if not file or file == STDOUT:
        return
    if not path.parent.is_dir():
        raise SettingError(f"{option}: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SettingError(f"{option}: {file} cannot be written" + (": it is a folder" if path.is_dir() else ""))


@dataclass(frozen=True)
class Asked:
    """What was given on the command line, as it was given; empty where it was not."""

    target: str
    url: str = ""
    model: str = ""
    version: str = ""
    protocol: str = ""
    method: str = ""
    inputs: Sequence[str] = ()
    data: Sequence[str] = ()
    expect: Sequence[str] = ()
    headers: Sequence[str] = ()
    content_type: str = ""
    key: str = ""
    timeout: float = 30.0


def target_of(asked: Asked, access: Access) -> Target:
    """The target. Raises :class:`SettingError` for what contradicts itself or cannot be read."""
    if not asked.target:
        raise SettingError("what is to be asked? Name a model, or an address")
    if asked.protocol and asked.protocol not in PROTOCOLS:
        raise SettingError(f"--protocol: {asked.protocol!r} is none of {', '.join(PROTOCOLS)}")
    address, path, model, protocol = _place(asked, "--url" in access.named)
    access.check(address)
    grpc = protocol in METHODS
    payloads = _payloads(asked, path, model, grpc)
    posts = bool(model or asked.inputs or asked.data)
    if grpc and (asked.method or asked.content_type):
        raise SettingError("--method and --content-type are for HTTP; a gRPC call has neither")
    if asked.method and not (asked.method.isascii() and asked.method.isalpha()):
        raise SettingError(f"--method: {asked.method!r} is no method of HTTP, like POST")
    if asked.key and path not in (METHODS[GRPC], METHODS[GRPC_STREAM]):
        raise SettingError(f"--input-key is for --protocol {GRPC} and {GRPC_STREAM}; a {protocol} request has no keys")
    return Target(
        address=address,
        path=path,
        payloads=payloads,
        method=asked.method.upper() or ("POST" if posts else "GET"),
        headers=_headers(asked, access),
        timeout=asked.timeout,
        cacert=access.cacert,
        insecure=access.insecure,
    )


def _place(asked: Asked, url_given: bool) -> tuple[str, str, str, str]:
    """(address, path, model or "", protocol)."""
    if is_address(asked.target):
        if url_given:
            raise SettingError(f"--url is the server of a model, and {asked.target} is an address already")
        address, path, model = *split_url(asked.target), asked.model
    else:
        if asked.model:
            raise SettingError(f"{asked.target!r} is taken as the name of a model; --model is for an address")
        address, path, model = *split_url(asked.url), asked.target
    protocol = asked.protocol or (GRPC if address.startswith("grpc") else REST)
    if not is_address(asked.target) and protocol in METHODS and address.startswith("http"):
        address = _grpc_beside(address, asked)
    if address.startswith("grpc") and protocol not in METHODS:
        raise SettingError(f"{address} speaks gRPC; --protocol {protocol} needs an http:// address")
    if address.startswith("http") and protocol in METHODS:
        raise SettingError(f"--protocol {protocol} needs an address like grpc://127.0.0.1:7070, not {address}")
    if not model:
        if asked.protocol or asked.version or address.startswith(("grpc", "unix")):
            raise SettingError(f"which model of {address}? Name it with --model")
        return address, path or "/", "", REST
    if path and (protocol in METHODS or is_address(asked.target)):
        raise SettingError(f"{asked.target} has a path already; --model completes the address of a server")
    return address, path + model_path(model, protocol, asked.version), model, protocol


def _grpc_beside(address: str, asked: Asked) -> str:
    """The gRPC port of the same host, for the server that is asked when none is named."""
    if asked.url != server_url("inference"):
        raise SettingError(f"--protocol {asked.protocol} needs --url grpc://host:7070, not {asked.url}")
    scheme, _, place = address.partition("://")
    host = place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place
    return f"{'grpcs' if scheme == 'https' else 'grpc'}://{host}:{DEFAULT_PORTS['grpc']}"


def _payloads(asked: Asked, path: str, model: str, grpc: bool) -> tuple[Payload, ...]:
    bodies = [(_read(file, "--input"), _type_of(file)) for file in asked.inputs]
    for text in asked.data:
        try:
            json.loads(text)
        except ValueError as error:
            raise SettingError(f"--data: not JSON: {error}; use --input for other input") from None
        bodies.append((text.encode(), "application/json"))
    bodies = bodies or [(b"", "")]
    answers: list[bytes | None] = [_read(file, "--expect") for file in asked.expect]
    if answers and len(answers) not in (1, len(bodies)):
        raise SettingError(f"--expect: {len(answers)} answers for {len(bodies)} inputs; give one for each, or one")
    answers = answers or [None]
    if grpc:
        from mlserve.load.grpc_messages import message

        bodies = [(message(path, body, model, asked.version, asked.key or KEY), "") for body, _ in bodies]
    v2 = "application/json" if asked.protocol == V2 else ""
    return tuple(
        Payload(body, asked.content_type or v2 or kind, answers[number % len(answers)])
        for number, (body, kind) in enumerate(bodies)
    )


def _type_of(file: str) -> str:
    return mimetypes.guess_type(file)[0] or "application/octet-stream"


def _read(file: str, option: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise SettingError(f"{option}: cannot read {file}: {error.strerror or error}") from None


def _headers(asked: Asked, access: Access) -> tuple[tuple[str, str], ...]:
    found = []
    for line in asked.headers:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise SettingError(f"--header: {line!r} is not 'Name: value'")
        found.append((name.strip(), value.strip()))
    names = {name.lower() for name, _ in found}
    for header, option, given in (
        ("authorization", "--token", "--token" in access.named),
        ("content-type", "--content-type", asked.content_type),
    ):
        if header in names and given:
            raise SettingError(f"--header has the {header} that {option} would make; give one of them")
    if access.token and "authorization" not in names:
        found.append(("Authorization", f"Bearer {access.token}"))
    return tuple(found)
