from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler


class Micro(BaseHandler):
    def __init__(self):
        self.handle = MicroBatching(self)

    def initialize(self, context):
        options = context.model_yaml_config["micro_batching"]
        self.handle.parallelism = options["parallelism"]
        self.handle.micro_batch_size = options["micro_batch_size"]

    def preprocess(self, data):
        return [bytes(row["body"]).decode() for row in data]

    def inference(self, data):
        return [text.upper() for text in data]

    def postprocess(self, data):
        return data
