"""``ts.torch_handler.request_envelope.kserve``."""

from mlserve.handlers.envelopes import KServeEnvelope

__all__ = ["KServeEnvelope"]
