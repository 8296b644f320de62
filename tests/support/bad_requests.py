"""More than 500 requests that no server should answer with anything but a clear refusal. The same ones every time.

A case is bytes for one connection. Where framing is intact the refusal leaves the connection usable; where it is not,
the connection must end, and what came behind the bad message must never be taken for a request.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from support.raw import get, post

CLIENT_ERRORS = frozenset(range(400, 500))
MAX_REQUEST = 100_000  # bytes: the server under test must be set to this
OCTETS = "content-type: application/octet-stream"
SMUGGLED = b"POST /predictions/echo HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\nsmuggled"


@dataclass(frozen=True)
class Case:
    """``data`` is sent, and with ``hang_up`` the sending side is closed after it.

    ``statuses`` are the right refusals; ``good`` answers with 200 come before it. ``may_close``: an end of the
    connection without an answer is as good. ``broken``: framing is lost, so the connection must end after the refusal.
    """

    name: str
    data: bytes
    statuses: frozenset[int] = CLIENT_ERRORS
    may_close: bool = False
    broken: bool = False
    hang_up: bool = False
    good: int = 0
    mentions: str = ""


def only(*statuses: int) -> frozenset[int]:
    return frozenset(statuses)


def inference_cases() -> list[Case]:
    """For the inference port of a server with a model ``echo``."""
    rng = random.Random(20261121)
    made = [
        *_routes(rng),
        *_methods(),
        *_json(rng),
        *_forms(rng),
        *_headers(),
        *_sizes(),
        *_framing(),
        *_chunks(rng),
        *_truncated(rng),
        *_noise(rng),
    ]
    return made


def _routes(rng: random.Random) -> Iterator[Case]:
    fixed = [
        "/", "/predictions", "/predictions/", "/prediction/echo", "/Predictions/echo", "/predictions//echo",
        "/predictions/unknown", "/predictions/echo/9.9", "/explanations/unknown", "/explanations/echo/0", "/models",
        "/models/echo", "/models/unknown/ready", "/metrics", "/favicon.ico", "/.env", "/predictions/Echo",
        "/predictions/..%2f..%2fetc%2fpasswd", "/../../etc/passwd", "/predictions/%00", "/predictions/echo%00",
        "/predictions/echo%0d%0aset-cookie:a=b", "/predictions/%zz", "/predictions/%", "/predictions/%e2%82",
        "/predictions/echo%2f1.0", "/predictions/echo/%ff", "//predictions/echo", "/predictions/;echo",
        "/predictions/" + "a" * 2000, "/" + "/" * 500, "/%252e%252e/", "/predictions/echo\\1.0",
    ]  # fmt: skip
    for path in fixed:
        refusals = only(405) if path == "/" else only(400, 404)  # there OPTIONS asks for the API description
        yield Case(f"route {path[:40]}", get(path), refusals)
        yield Case(f"route, posted to {path[:40]}", post(path, b"x", OCTETS), refusals)
    for _ in range(40):
        text = "".join(chr(rng.randrange(33, 127)) for _ in range(rng.randrange(1, 30)))
        yield Case(f"route with unknown {text}", post("/predictions/no-" + quote(text), b"x"), only(404))
    for _ in range(20):
        path = "/" + "".join(rng.choice("%abcdef0123456789/.;~") for _ in range(rng.randrange(2, 40)))
        yield Case(f"route {path}", get(path), only(400, 404))


def _methods() -> Iterator[Case]:
    body = b"host: test\r\ncontent-length: 0\r\n\r\n"
    for path in ("/predictions/echo", "/predictions/echo/1.0", "/explanations/echo", "/health/ready"):
        for method in ("DELETE", "PATCH", "TRACE", "PROPFIND", "SEARCH"):
            line = f"{method} {path} HTTP/1.1\r\n".encode()
            yield Case(f"method {method} {path}", line + body, only(400, 404, 405))
    for method in ("BREW", "get", "post", "GETT", "P", "PO ST", "G\x00T", "", "X" * 3000, "POST\t"):
        line = f"{method} /predictions/echo HTTP/1.1\r\n".encode()
        yield Case(f"method {method[:10]!r}", line + body, only(400, 405, 431), broken=True)
    yield Case("method CONNECT", b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n", may_close=True)


def _json(rng: random.Random) -> Iterator[Case]:
    fixed = [
        b"{", b"}", b"[1,]", b"{'a': 1}", b"nul", b"tru", b"\xff\xfe", b'"\x01"', b'{"a" 1}', b"[1 2]", b"+1", b"01",
        b'{"a":1}}', b"\x00", b'"open', b"[" * 50, b"<xml/>", b'{"a":1,}', b"// no\n1", b'"\\x41"',
    ]  # fmt: skip
    document = json.dumps({"instances": [[1.5, 2, None], {"deep": ["x", True]}], "name": "model"}).encode()
    bodies = [*fixed, *(document[: rng.randrange(1, len(document) - 1)] for _ in range(25))]
    while len(bodies) < 90:
        wild = bytearray(document)
        wild[rng.randrange(len(wild))] = rng.choice(b"{}[]:,\"\\x'\x00\x80")
        if not _is_json(bytes(wild)):
            bodies.append(bytes(wild))
    for number, body in enumerate(bodies):
        kind = ("application/json", "application/json; charset=utf-8")[number % 2]
        yield Case(f"json {body[:30]!r}", post("/predictions/echo", body, f"content-type: {kind}"), only(400))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _forms(rng: random.Random) -> Iterator[Case]:
    def form(name: str, content_type: str, body: bytes) -> Case:
        return Case(f"form {name}", post("/predictions/echo", body, f"content-type: {content_type}"), only(400))

    part = b'--cut\r\ncontent-disposition: form-data; name="data"\r\n\r\nvalue\r\n'
    whole = part + b"--cut--\r\n"
    yield form("without a boundary", "multipart/form-data", whole)
    yield form("with an empty boundary", "multipart/form-data; boundary=", whole)
    yield form("with another boundary", "multipart/form-data; boundary=other", whole)
    yield form("with a boundary of 10000", "multipart/form-data; boundary=" + "b" * 10_000, whole)
    yield form("that is empty", "multipart/form-data; boundary=cut", b"")
    yield form("that only ends", "multipart/form-data; boundary=cut", b"--cut")
    nameless = b"--cut\r\ncontent-disposition: form-data\r\n\r\nvalue\r\n--cut--\r\n"
    yield form("without a name", "multipart/form-data; boundary=cut", nameless)
    yield form("without part headers", "multipart/form-data; boundary=cut", b"--cut\r\n\r\nvalue\r\n--cut--\r\n")
    yield form(
        "with junk for a header", "multipart/form-data; boundary=cut", b"--cut\r\n\x00\x01: x\r\n\r\n\r\n--cut--"
    )
    yield form("with 1200 parts", "multipart/form-data; boundary=cut", _many_parts(1200))
    yield form("with 2000 fields", "application/x-www-form-urlencoded", b"&".join(b"f%d=1" % i for i in range(2000)))
    for _ in range(30):
        cut = rng.randrange(1, len(whole) - 5)
        yield form(f"cut at {cut}", "multipart/form-data; boundary=cut", whole[:cut])


def _many_parts(count: int) -> bytes:
    head = b'--cut\r\ncontent-disposition: form-data; name="%d"\r\n\r\n\r\n'
    return b"".join(head % number for number in range(count)) + b"--cut--\r\n"


def _headers() -> Iterator[Case]:
    deadlines = ["0", "-1", "abc", "", "1e3", "inf", "nan", "5 s", "5m", "0ms", "0.0", "1.2.3", "99999999999", "86401",
                 ".5", "5.", "0x10", "1,5", "+1", "5sec", "\u00b2", "1" * 400]  # fmt: skip
    for value in deadlines:
        head = f"x-request-timeout: {value}"
        yield Case(f"deadline {value[:20]!r}", post("/predictions/echo", b"x", OCTETS, head), only(400))
    lengths = [
        "-1",
        "+5",
        "5,5",
        "5, 6",
        "abc",
        "",
        "1e3",
        "0x10",
        "5 5",
        "18446744073709551616",
        "9" * 40,
        "5;",
        "\x00",
    ]
    for value in lengths:
        head = f"POST /predictions/echo HTTP/1.1\r\nhost: test\r\ncontent-length: {value}\r\n\r\nhello"
        yield Case(f"content-length {value[:24]!r}", head.encode() + SMUGGLED, only(400, 413), broken=True)
    yield Case(
        "expectation that nobody knows", post("/health/live", b"", "expect: the-unexpected"), only(404, 405, 417)
    )


def _sizes() -> Iterator[Case]:
    for path in ("/predictions/echo", "/ping"):
        for size in (70_000, 200_000):
            yield Case(
                f"header of {size} to {path}", get(path, "x-big: " + "a" * size), only(400, 413, 431), broken=True
            )
        many = [f"x-{number}: {'v' * 60}" for number in range(2000)]
        yield Case(f"2000 headers to {path}", get(path, *many), only(400, 413, 431), broken=True)
        yield Case(f"header name of 70000 to {path}", get(path, "n" * 70_000 + ": 1"), only(400, 413, 431), broken=True)
        url = path + "?" + "q" * 70_000
        yield Case(f"url of 70000 to {path}", get(url), only(400, 413, 414, 431), broken=True)
    yield Case("url of 300000", get("/" + "u" * 300_000), only(400, 413, 414, 431), broken=True)
    endless = b"POST /predictions/echo HTTP/1.1\r\nhost: test\r\nx-endless: " + b"e" * 150_000
    yield Case("header without an end", endless, only(400, 413, 431), broken=True)
    named = {"statuses": only(413), "mentions": "max_request_size"}
    for size in (MAX_REQUEST + 1, 2 * MAX_REQUEST, 10 * MAX_REQUEST):
        yield Case(f"body of {size}", post("/predictions/echo", b"x" * size, OCTETS), **named)
        head = f"POST /predictions/echo HTTP/1.1\r\nhost: test\r\n{OCTETS}\r\ncontent-length: {size}\r\n\r\n".encode()
        yield Case(f"announced body of {size}", head + b"x" * 100, **named)
        yield Case(f"announced body of {size} that waits", _with_expect(head), **named)
        pieces = b"".join(b"2710\r\n" + b"x" * 10_000 + b"\r\n" for _ in range(size // 10_000 + 1)) + b"0\r\n\r\n"
        yield Case(f"chunked body of {size}", _chunked(pieces), **named)


def _with_expect(head: bytes) -> bytes:
    return head[:-2] + b"expect: 100-continue\r\n\r\n"


def _chunked(body: bytes, *headers: str) -> bytes:
    lines = ["POST /predictions/echo HTTP/1.1", "host: test", OCTETS, "transfer-encoding: chunked", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _framing() -> Iterator[Case]:
    """Messages whose end can be read in two ways (request smuggling), and heads that are none."""

    def head(name: str, *lines: str, body: bytes = b"", path: str = "/predictions/echo") -> Case:
        text = "\r\n".join([f"POST {path} HTTP/1.1", "host: test", *lines]).encode("latin-1") + b"\r\n\r\n"
        return Case(f"framing: {name}", text + body + SMUGGLED, broken=True)

    chunked = "transfer-encoding: chunked"
    for path in ("/predictions/echo", "/ping", "/nowhere"):
        yield head(f"CL.TE {path}", "content-length: 6", chunked, body=b"0\r\n\r\nG", path=path)
        yield head(f"TE.CL {path}", chunked, "content-length: 4", body=b"5c\r\nGPOST\r\n0\r\n\r\n", path=path)
        yield head(f"two lengths {path}", "content-length: 5", "content-length: 6", body=b"hello", path=path)
        yield head(f"folded header {path}", "x-a: 1", " continued", "content-length: 0", path=path)
        yield head(f"space before colon {path}", "content-length : 5", body=b"hello", path=path)
        yield head(f"no colon {path}", "nonsense", path=path)
        yield head(f"empty name {path}", ": value", path=path)
        yield head(f"NUL in name {path}", "x\x00y: 1", path=path)
        yield head(f"NUL in value {path}", "x-a: 1\x002", path=path)
        yield head(f"lone CR in value {path}", "x-a: 1\r2", path=path)
        yield head(f"wrong last coding {path}", "transfer-encoding: chunked, identity", body=b"0\r\n\r\n", path=path)
        yield head(f"unknown coding {path}", "transfer-encoding: xchunked", body=b"0\r\n\r\n", path=path)
        yield head(f"two codings {path}", chunked, "transfer-encoding: identity", body=b"0\r\n\r\n", path=path)
        yield head(f"coding after vertical tab {path}", "transfer-encoding:\x0bchunked", body=b"0\r\n\r\n", path=path)
    bare = b"POST /predictions/echo HTTP/1.1\nhost: test\ncontent-length: 0\n\n"
    yield Case("framing: bare LF", bare + SMUGGLED, broken=True)
    for version in ("HTTP/9.9", "HTTP/1.1x", "HTTP/", "HTTQ/1.1", "http/1.1", "HTTP/1.", "1.1", "HTTP/2.0"):
        data = f"POST /predictions/echo {version}\r\nhost: test\r\ncontent-length: 0\r\n\r\n".encode()
        yield Case(f"framing: version {version}", data + SMUGGLED, broken=True)
    for line in (
        b"POST\r\n\r\n", b"POST  /x HTTP/1.1\r\n\r\n", b"/predictions/echo\r\n\r\n",
        b"POST /a b HTTP/1.1\r\n\r\n", b" POST / HTTP/1.1\r\n\r\n", b"POST /\x00 HTTP/1.1\r\n\r\n",
        b"POST \xff\xfe HTTP/1.1\r\n\r\n",
    ):  # fmt: skip
        yield Case(f"framing: request line {line[:20]!r}", line, broken=True)


def _chunks(rng: random.Random) -> Iterator[Case]:
    bodies = [
        b"z\r\n", b"-1\r\nx\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
        b"\r\n\r\n", b"5\r\nhelloworld\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"ffffffffffffffffff\r\n",
        b"5\r\nhel\r\n0\r\n\r\n", b"5 5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
        b"5,\r\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"\x005\r\nhello\r\n",
        b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    ]  # fmt: skip
    for body in bodies:
        yield Case(f"chunk {body[:16]!r}", _chunked(body) + SMUGGLED, only(400, 413), broken=True)
    for _ in range(20):
        size = bytes(rng.choice(b"ghijklmnopqrstuvwxyz!$%&/()=") for _ in range(rng.randrange(1, 12)))
        yield Case(
            f"chunk size {size!r}", _chunked(size + b"\r\nhello\r\n0\r\n\r\n") + SMUGGLED, only(400), broken=True
        )


def _truncated(rng: random.Random) -> Iterator[Case]:
    """The client promises more than it sends, and goes."""
    whole = post("/predictions/echo", b"y" * 200, OCTETS)
    chunked = _chunked(b"c8\r\n" + b"y" * 200 + b"\r\n0\r\n\r\n")
    health = get("/ping")
    for data, name in ((whole, "body"), (chunked, "chunked"), (health, "health")):
        for _ in range(15):
            cut = rng.randrange(1, len(data))
            yield Case(f"{name} cut at {cut}", data[:cut], may_close=True, broken=True, hang_up=True)


def _noise(rng: random.Random) -> Iterator[Case]:
    hello = bytes.fromhex("16030100c8010000c40303") + rng.randbytes(32) + b"\x20" + rng.randbytes(150)
    yield Case("TLS client hello", hello, may_close=True, broken=True)
    yield Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", broken=True)
    yield Case("SSH greeting", b"SSH-2.0-OpenSSH_9.6\r\n", broken=True, may_close=True)
    yield Case("Redis", b"*1\r\n$4\r\nPING\r\n", broken=True)
    for number in range(60):
        data = rng.randbytes(rng.randrange(1, 2000)).replace(b"\n", b"\x00").lstrip(b"\r") or b"\x00"
        yield Case(f"noise {number}", data, may_close=True, broken=True, hang_up=True)
    for number in range(25):
        junk = b"\x80" + rng.randbytes(rng.randrange(1, 300))
        good = post("/predictions/echo", b"good", OCTETS) * (number % 3 + 1)
        yield Case(f"noise behind {number % 3 + 1} requests", good + junk, broken=True, good=number % 3 + 1)
