"""Image files that clients send, opened and decoded: whatever is wrong with one is the client's error, never a crash.

Pillow's readers raise whatever comes up in a damaged file: beside ``OSError`` and ``SyntaxError`` a ``RuntimeError``
(AVIF), ``TypeError`` (IM), ``AttributeError`` (SPIDER), ``NotImplementedError`` (DDS). A batch survives all of them.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlserve.handler import PredictionError

if TYPE_CHECKING:
    from PIL.Image import Image

EXPECTED = "a JPEG, PNG or other image file as the body or as the part 'data', its base64 text, or a nested list"


@contextmanager
def reading() -> Iterator[None]:
    """Turn what Pillow raises on a client's image into :class:`PredictionError` with status 400, or 413 if too large.

    Its other warnings are about the client's file as well, and the log of a server is not the place for them.
    """
    from PIL import Image as pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)  # Pillow itself raises at twice its limit
            yield
    except (PredictionError, MemoryError):
        raise
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        message = f"The image is too large: {error} (image: max_pixels in model-config.yaml)"
        raise PredictionError(413, message) from error
    except Exception as error:
        raise PredictionError(400, f"The image is damaged: {error}") from error


def opened(value: Any) -> Image:
    """Read the header of an image; decoding comes later. Raises :class:`PredictionError` with status 400 or 413."""
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    data = _content(value)
    with reading():
        try:
            return pillow.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            message = f"Not an image that Pillow can read ({len(data)} bytes): expected {EXPECTED}"
            raise PredictionError(400, message) from error


def _content(value: Any) -> bytes | bytearray | memoryview:
    if value is None:
        raise PredictionError(400, f"No image in the request: expected {EXPECTED}")
    if isinstance(value, str):
        try:
            text = value.partition(",")[2] if value.startswith("data:") else value  # a data: URL, as browsers make
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise PredictionError(400, f"The text is not base64 ({error}): expected {EXPECTED}") from error
    if not isinstance(value, bytes | bytearray | memoryview):
        raise PredictionError(400, f"Cannot read an image from a JSON {type(value).__name__}: expected {EXPECTED}")
    return value


def rgb(image: Image) -> Image:
    """The pixels of an opened image as RGB. Raises :class:`PredictionError` with status 400 or 413.

    Of 16 bits the upper 8 are kept, as Pillow itself does for colours; its ``convert`` would turn all grey values from
    256 up to white. Pixels of 32 bits are refused: nothing in the file says which values are black and white.
    """
    import numpy as np
    from PIL import Image as pillow

    with reading():
        image.load()
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise PredictionError(400, "The image has pixels of 32 bits: expected 8 or 16 bits for each channel")
        return image.convert("RGB")
