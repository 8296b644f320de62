"""``ts.torch_handler.request_envelope.base``."""

from mlserve.handlers.envelopes import BaseEnvelope

__all__ = ["BaseEnvelope"]
