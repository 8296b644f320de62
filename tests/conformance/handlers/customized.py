"""Says of itself what TorchServe's fixture says, or fails to when its description is asked for twice."""

from mlserve.handlers.base import BaseHandler


class Customized(BaseHandler):
    def initialize(self, context):
        self.asked = 0

    def describe_handle(self):
        self.asked += 1
        if self.asked > 1:
            raise RuntimeError("asked too often")
        return {"data1": "1", "data2": "2"}
