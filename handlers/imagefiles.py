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


def limit(max_pixels: int | None) -> None:
    """Refuse larger images from now on, in the whole process: Pillow has one limit. None lifts it."""
    from PIL import Image as pillow

    pillow.MAX_IMAGE_PIXELS = max_pixels
    # Pillow raises at twice its limit and warns before; check() raises instead. Filters of warnings belong to all
    # threads, so they cannot be set around the reading of one image.
    warnings.simplefilter("ignore", pillow.DecompressionBombWarning)


def check(image: Image) -> None:
    """Raise :class:`PredictionError` with status 400 for an image of more pixels than the limit."""
    from PIL import Image as pillow

    most, pixels = pillow.MAX_IMAGE_PIXELS, image.width * image.height
    if most is not None and pixels > most:
        raise too_large(f"{pixels} pixels of at most {most}")


def too_large(reason: object) -> PredictionError:
    """The refusal of an image for its size. Not 413: in the words of TorchServe's doors a handler's 413 is 507."""
    return PredictionError(400, f"The image is too large: {reason} (image: max_pixels in model-config.yaml)")


@contextmanager
def reading() -> Iterator[None]:
    """Turn what Pillow raises on a client's image into :class:`PredictionError` with status 400."""
    from PIL import Image as pillow

    try:
        yield
    except (PredictionError, MemoryError):
        raise
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise too_large(error) from error
    except Exception as error:
        raise PredictionError(400, f"The image is damaged: {error}") from error


def opened(value: Any) -> Image:
    """Read the header of an image; decoding comes later. Raises :class:`PredictionError` with status 400."""
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    data = _content(value)
    with reading():
        try:
            image = pillow.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            message = f"Not an image that Pillow can read ({len(data)} bytes): expected {EXPECTED}"
            raise PredictionError(400, message) from error
    if image.format == "EPS":  # Pillow would have Ghostscript run it: a client's program
        raise PredictionError(400, f"PostScript is a program, not an image: expected {EXPECTED}")
    check(image)
    return image


def load(image: Image) -> None:
    """Read the pixels of an opened image, as they are. Raises :class:`PredictionError` with status 400."""
    with reading():
        image.load()
    check(image)  # an icon's frame may be larger than its directory says


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
    """The pixels of an opened image as RGB. Raises :class:`PredictionError` with status 400.

    Of 16 bits the upper 8 are kept, as Pillow itself does for colours; its ``convert`` would turn all grey values from
    256 up to white. Pixels of 32 bits are refused: nothing in the file says which values are black and white.
    """
    import numpy as np
    from PIL import Image as pillow

    load(image)
    with reading():
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise PredictionError(400, "The image has pixels of 32 bits: expected 8 or 16 bits for each channel")
        return image.convert("RGB")
