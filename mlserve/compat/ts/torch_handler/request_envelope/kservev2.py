"""``ts.torch_handler.request_envelope.kservev2``."""

from mlserve.handlers.envelopes import KServev2Envelope

__all__ = ["KServev2Envelope"]
