"""A worker's runner around a handler function, without a process: batches in, results out."""

import msgspec

from mlserve.wire.frames import Kind, encode_meta
from mlserve.wire.payload import BatchMeta, ChunkMeta, ItemMeta, Load, PartMeta
from mlserve.worker.context import make_context
from mlserve.worker.loader import Entry
from mlserve.worker.rows import RowDecoder
from mlserve.worker.runner import Runner, Work


class FakeLink:
    def __init__(self):
        self.chunks = []

    def send(self, kind, batch_id, meta, bodies):
        assert kind == Kind.CHUNK
        chunk = msgspec.msgpack.decode(meta, type=ChunkMeta)
        self.chunks.append((chunk.index, b"".join(bodies), chunk.content_type))


class Rig:
    """One runner around a handler function. ``ask`` gives (items, bodies) for a batch of one-part items."""

    def __init__(self, handle, **settings):
        load = Load("m", "1.0", "", "h", {}, {}, **settings)
        self.link = FakeLink()
        self.context = make_context(load)
        rows = RowDecoder(load, None)
        self.runner = Runner(Entry(handle, "test:handle"), self.context, load, rows, self.link, lambda value: value)

    def work(self, *bodies, content_type="", batch_id=1):
        items = [ItemMeta(f"r{n}", [PartMeta("body", content_type, len(body))], []) for n, body in enumerate(bodies)]
        return Work(batch_id, encode_meta(BatchMeta(items)), memoryview(b"".join(bodies)), 0.0)

    def ask(self, *bodies, cancelled=(), **options):
        work = self.work(*bodies, **options)
        work.cancelled.update(cancelled)
        self.meta, sent = self.runner.handle(work)
        assert len(self.meta.items) == len(sent) == len(bodies), "one ending for each"
        return self.meta.items, [bytes(body) for body in sent]
