"""Copies of a handler for the threads that compute batches side by side (``handlerThreads``).

Each thread has a shallow copy, and most of what a handler loaded can be called by all. ``__copy__`` of a class says
what cannot: it is the place where a copy gets a tokenizer, a request or a recurrent state of its own.
"""

from __future__ import annotations

from typing import Any, TypeVar

Made = TypeVar("Made")


def copied(original: Made, **own: Any) -> Made:
    """A shallow copy with other values for the attributes in ``own``."""
    made = object.__new__(type(original))
    made.__dict__.update(original.__dict__)
    made.__dict__.update(own)
    return made
