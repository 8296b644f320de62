"""``ts.torch_handler.request_envelope.json``."""

from mlserve.handlers.envelopes import JSONEnvelope

__all__ = ["JSONEnvelope"]
