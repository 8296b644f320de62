"""``ts.torch_handler.request_envelope.body``."""

from mlserve.handlers.envelopes import BodyEnvelope

__all__ = ["BodyEnvelope"]
