"""``ts.protocol.otf_message_handler``: only the older import path of ``send_intermediate_predict_response``."""

from mlserve.compat.ts.handler_utils.utils import send_intermediate_predict_response

__all__ = ["send_intermediate_predict_response"]
