"""The metadata of every frame kind, as msgspec structs; bodies travel beside them as raw bytes.

Per-batch structs are encoded as arrays, once per batch (32 items: 1.6 us out, 4.6 us in).
Nothing on the wire is ever pickled.
"""

from __future__ import annotations

from typing import Any

import msgspec

EXIT_LOAD_FAILED = 3  # exit codes of a worker
EXIT_PROTOCOL_ERROR = 4
EXIT_DEVICE_LOST = 5
SAYS = {EXIT_PROTOCOL_ERROR: "protocol error", EXIT_DEVICE_LOST: "the device is lost to this process"}
"""How the line begins that a worker writes to stderr before it ends with that code: a handler may use any code too."""


class Hello(msgspec.Struct):
    """Worker -> server, first frame: who is there."""

    pid: int
    python: str
    protocol: int
    rank: int = 0  # among the processes of a group


class Warm(msgspec.Struct):
    """Server -> spare worker, before LOAD: import these modules, then wait."""

    modules: list[str]
    environment: dict[str, str] = {}  # to be set before that


class Warmed(msgspec.Struct):
    """Spare worker -> server: they are imported. ``top`` names the packages and modules that came with them."""

    seconds: float
    top: list[str]
    failed: list[str] = []  # "module: why"
    cuda: bool = False  # something has initialised CUDA: it can take no model


class MetricDeclaration(msgspec.Struct, array_like=True):
    """A metric that handlers find in ``context.metrics`` without having declared it. ``kind`` as in MetricRecord."""

    name: str
    unit: str
    kind: str
    dimensions: list[str]


class Load(msgspec.Struct):
    """Server -> worker, once: the model to load and how to treat its requests."""

    model_name: str
    model_version: str
    model_dir: str
    handler: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    gpu_id: int | None = None  # as the handler sees it: 0 when pinned by CUDA_VISIBLE_DEVICES
    batch_size: int = 1
    limit_max_image_pixels: bool = True
    decode_input: bool = True
    reject_invalid_json: bool = True
    isolate_errors: bool = True
    infer_content_type: bool = True
    max_response_size: int = 64 << 20
    strict_results: bool = False  # TorchServe's rules and texts for what a handler returns
    service_envelope: str = ""  # "", "body", "json", "kserve" or "kservev2"
    sequence_id_header: str = "ts_request_sequence_id"
    sequence_start_header: str = "ts_request_sequence_start"
    sequence_end_header: str = "ts_request_sequence_end"
    async_communication: bool = False
    continuous_batching: bool = False
    handler_times: bool = False  # report TorchServe's metrics HandlerTime and PredictionTime
    worker_id: int = 0
    metrics: list[MetricDeclaration] = []
    environment: dict[str, str | None] = {}  # of a worker that was started as a spare: what its environment lacks
    own_files: bool = False  # the model's directory is the server's copy, which nobody writes to
    report_modules: bool = False  # READY is to name what a spare should import
    preprocess_threads: int = -1  # batches preprocessed ahead; -1 = one on a GPU, for built-in handlers
    handler_threads: int = 1  # batches computed at once


class MetricRecord(msgspec.Struct, array_like=True, gc=False):
    """One call on ``context.metrics``. ``kind`` is "counter", "gauge" or "histogram".

    ``origin``: 0 = ``dimensions`` are complete; 1 = reported by ``add_*``, about the model; 2 = by ``add_error``. What
    that adds is the server's business. ``request_id`` is empty where the report is about the whole batch, or nobody's.
    """

    name: str
    value: float
    unit: str
    kind: str
    dimensions: list[tuple[str, str]] = []
    index: int = -1
    request_id: str = ""
    origin: int = 0


class Ready(msgspec.Struct):
    """Worker -> server: loaded."""

    seconds: float
    entry: str  # "module.Class" or "module:function", for describe
    metrics: list[MetricRecord] = []  # reported by the handler meanwhile
    signature: dict[str, Any] = {}  # the model's inputs and outputs, where the handler knows them; for describe
    modules: list[str] = []  # imported ones that take long, where they are asked for


class LoadFailed(msgspec.Struct):
    """Worker -> server: could not load; the worker exits with code 3."""

    kind: str  # an ErrorKind value
    message: str
    traceback: str
    metrics: list[MetricRecord] = []  # reported by the handler before it failed


class PartMeta(msgspec.Struct, array_like=True, gc=False):
    """One part of an item. ``offset`` >= 0: it lies in the arena there, else in the frame body, in order."""

    name: str
    content_type: str
    length: int
    offset: int = -1


class ItemMeta(msgspec.Struct, array_like=True):
    """One request of a batch. ``url_path`` is None where the protocol has no such notion."""

    request_id: str
    parts: list[PartMeta]
    headers: list[tuple[bytes, bytes]]
    explain: bool = False
    url_path: str | None = ""


_decode_headers = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode
_decode_raw = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]] | bytes).decode


class ReceivedItem(msgspec.Struct, array_like=True, gc=False):
    """An :class:`ItemMeta` as a worker reads it: most handlers never ask for the headers.

    The server sends them encoded once more, as bytes: whoever skips a list has to look at each of its elements.
    """

    request_id: str
    parts: list[PartMeta]
    raw_headers: msgspec.Raw
    explain: bool = False
    url_path: str | None = ""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The client's headers."""
        headers = _decode_raw(self.raw_headers)
        return _decode_headers(headers) if isinstance(headers, bytes) else headers


class ReceivedBatch(msgspec.Struct, array_like=True, gc=False):
    """A :class:`BatchMeta` as a worker reads it."""

    items: list[ReceivedItem]


class BatchMeta(msgspec.Struct, array_like=True):
    """Server -> worker: the items of a batch, in order."""

    items: list[ItemMeta]


class ItemResult(msgspec.Struct, array_like=True, gc=False):
    """One answer. ``error`` is an ErrorKind value or empty; then there is no body and ``message`` tells.

    ``status`` != 200 with an empty ``error`` is a status the handler set for a body of its own.
    ``offset`` >= 0: the body lies in the worker's arena there until the server sends RELEASE for the batch.
    """

    length: int = 0
    content_type: str = ""
    status: int = 200
    reason: str = ""
    headers: list[tuple[str, str]] = []
    error: str = ""
    message: str = ""
    detail: str = ""
    offset: int = -1


class ResultMeta(msgspec.Struct, array_like=True, gc=False):
    """Worker -> server: a finished batch.

    ``received``, ``started`` and ``finished`` are CLOCK_MONOTONIC seconds, which all processes of a host share;
    the three phases are durations in seconds. ``lengths`` stands for answers that have all ``content_type`` and
    nothing else that is not the default, instead of ``listed``: 8 of them take 0.5 us to write and to read, not 4.
    """

    listed: list[ItemResult]
    received: float
    started: float
    finished: float
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    metrics: list[MetricRecord] = []
    lengths: list[int] = []
    content_type: str = ""

    @property
    def items(self) -> list[ItemResult]:
        """One for each request of the batch, in order."""
        return self.listed or [ItemResult(length, self.content_type) for length in self.lengths]


class ChunkMeta(msgspec.Struct, array_like=True):
    """Worker -> server: the frame's body is a piece of item ``index`` of the batch."""

    index: int
    content_type: str = ""
    headers: list[tuple[str, str]] = []
    status: int = 200
    reason: str = ""


class CancelMeta(msgspec.Struct, array_like=True):
    """Server -> worker: nobody waits for item ``index`` of the batch any more."""

    index: int


class LogRecordMeta(msgspec.Struct, array_like=True):
    """Worker -> server: one record of Python's logging."""

    level: int
    logger: str
    message: str
    created: float
