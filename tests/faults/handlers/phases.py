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
