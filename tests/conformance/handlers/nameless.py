"""Answers as a model without an envelope does: tensors, one value of which JSON cannot hold, and no name of its own."""


def handle(data, context):
    return [{"outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [1.5, None]}]} for _ in data or []]
