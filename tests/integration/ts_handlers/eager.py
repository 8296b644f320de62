import torch
from ts.context import Context
from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label


class Eager(BaseHandler):
    def initialize(self, context: Context):
        super().initialize(context)
        assert isinstance(context, Context)
        assert self.mapping == {"0": "cat", "1": "dog"}

    @timed
    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)

    def postprocess(self, data):
        return map_class_to_label(super().postprocess(data), self.mapping)

    def get_insights(self, tensor_data, raw, target=0):
        return [{"raw": raw, "target": target} for _ in tensor_data]
