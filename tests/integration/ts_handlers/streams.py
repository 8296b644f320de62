from ts.handler_utils.utils import send_intermediate_predict_response
from ts.protocol.otf_message_handler import send_intermediate_predict_response as older
from ts.service import PredictionException


def handle(data, context):
    if data is None:
        return None
    if any(row["body"] == b"refuse" for row in data):
        raise PredictionException("not today", 513)
    pieces = [f"{context.get_request_id(index)} " for index in range(len(data))]
    send_intermediate_predict_response(pieces, context.request_ids, "Intermediate Prediction success", 200, context)
    older(pieces, context.request_ids, "Intermediate Prediction success", 200, context)
    return ["end"] * len(data)
