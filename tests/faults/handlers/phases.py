"""Its phases take as long as the request says, and keep what they learn of the batch on ``self``, as many do."""

import threading
import time

from mlserve.handler import PredictionError
from mlserve.handlers.base import BaseHandler


class Phases(BaseHandler):
    def initialize(self, context):
        self.context = context

    def preprocess(self, data):
        texts = [bytes(row["body"]).decode() for row in data]
        self.ids = [self.context.get_request_id(index) for index in range(len(data))]
        self.thread = threading.current_thread().name
        for index, text in enumerate(texts):
            if text == "refuse":
                self.refuse(index, PredictionError(422, "not this one"))
            if text == "raise":
                raise ValueError("cannot be preprocessed")
            self.context.metrics.add_counter("prepared", 1, index)
        time.sleep(max(float(text) for text in texts) if texts[0][0].isdigit() else 0)
        return [text for text in texts if text != "refuse"]

    def inference(self, data):
        if "lost" in data:
            raise RuntimeError("CUDA error: device-side assert triggered")
        time.sleep(max(float(text) if text[0].isdigit() else 0 for text in data))
        return data

    def postprocess(self, data):
        self.context.set_response_header(0, "prepared-in", self.thread)
        return [f"{text} {' '.join(self.ids)} {threading.current_thread().name}" for text in data]


class Whole(Phases):
    def handle(self, data, context):
        return super().handle(data, context)


class Meets(Phases):
    """The inference of a batch of "meets" ends when the batch after it has been preprocessed; alone it fails."""

    lock, prepared = threading.Condition(), 0

    def preprocess(self, data):
        rows = super().preprocess(data)
        with self.lock:
            Meets.prepared += 1
            self.number = Meets.prepared
            self.lock.notify_all()
        return rows

    def inference(self, data):
        if data == ["meets"]:
            with self.lock:
                assert self.lock.wait_for(lambda: Meets.prepared > self.number, 10), "nothing was prepared meanwhile"
        return data


class Timed(Phases):
    """Tells how long its first phases took, and the time between them, as it saw them itself."""

    def preprocess(self, data):
        began = time.monotonic()
        rows = super().preprocess(data)
        self.ended = time.monotonic()
        self.took = self.ended - began
        return rows

    def inference(self, data):
        began = time.monotonic()
        super().inference(data)
        return [f"{self.took} {began - self.ended} {time.monotonic() - began}"] * len(data)

    def postprocess(self, data):
        return data
