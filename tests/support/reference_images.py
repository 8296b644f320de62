"""Images made by arithmetic, the same everywhere, and what is done to each: for ``support.torchvision_reference``.

JPEG files are lossy and encoders differ, so the table stores the one that was read; all else is made from here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

TABLE = Path(__file__).parents[1] / "fixtures" / "torchvision_preprocessing.npz"
STRIDE, COARSE = 9, 27  # every how many pixels a value is stored: as 0 to 255, and normalised


class Case(NamedTuple):
    """An image of ``width`` x ``height``, stored with Pillow's ``mode`` as ``kind``, and the preprocessing it gets."""

    width: int
    height: int
    mode: str = "RGB"
    kind: str = "PNG"
    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"


CASES = {
    "landscape": Case(640, 427),
    "portrait": Case(301, 402),
    "odd": Case(333, 257),
    "as large as asked": Case(256, 256),
    "the crop alone": Case(400, 256),
    "enlarged": Case(50, 40),
    "one pixel": Case(1, 1),
    "a wide strip": Case(900, 30),
    "a tall strip": Case(20, 700),
    "no margin": Case(500, 375, resize=224),
    "resize 232": Case(500, 375, resize=232),
    "small": Case(201, 300, resize=64, crop=56),
    "large crop": Case(700, 620, resize=480, crop=479),
    "bicubic": Case(640, 427, interpolation="bicubic"),
    "bicubic enlarged": Case(50, 40, interpolation="bicubic"),
    "lanczos": Case(333, 500, interpolation="lanczos"),
    "box": Case(333, 500, interpolation="box"),
    "hamming": Case(333, 500, interpolation="hamming"),
    "nearest": Case(333, 500, interpolation="nearest"),
    "nearest enlarged": Case(90, 70, interpolation="nearest"),
    "grey": Case(400, 300, "L"),
    "black and white": Case(400, 300, "1"),
    "transparent": Case(400, 300, "RGBA"),
    "grey and transparent": Case(400, 300, "LA"),
    "palette": Case(400, 300, "P"),
    "16 bits": Case(400, 300, "I;16"),
    "16 bits, big-endian": Case(400, 300, "I;16B", "TIFF"),
    "JPEG": Case(240, 180, "RGB", "JPEG"),
    "grey JPEG": Case(240, 180, "L", "JPEG"),
    "CMYK JPEG": Case(240, 180, "CMYK", "JPEG"),
}


def pattern(width: int, height: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """``[height, width, 4]`` from 0 to 65535: slopes, hard edges and a little noise, so that a wrong filter shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    channels = []
    for channel in range(4):
        slope = (x * (60 + 20 * channel) // max(width, 1) + y * (90 - 20 * channel) // max(height, 1)) * 256
        edges = ((x // (11 + 5 * channel) + y // (17 - 3 * channel)) % 2) * 16384
        noise = ((x * 73856093) ^ (y * 19349663) ^ (channel * 83492791)) * 2654435761 >> 9 & 8191
        channels.append(np.clip(slope + edges + noise, 0, 65535))
    return np.stack(channels, axis=2)


def picture(case: Case) -> Image.Image:
    """The image of a case in its mode."""
    deep = pattern(case.width, case.height)
    shallow = (deep >> 8).astype(np.uint8)
    if case.mode == "I;16":
        return Image.fromarray(deep[..., 0].astype(np.uint16))
    if case.mode == "I;16B":
        return Image.frombytes("I;16B", (case.width, case.height), deep[..., 0].astype(">u2").tobytes())
    if case.mode == "1":
        return Image.fromarray(np.where(shallow[..., 0] > 100, 255, 0).astype(np.uint8)).convert("1")
    if case.mode == "P":
        image = Image.frombytes("P", (case.width, case.height), shallow[..., 0].tobytes())
        image.putpalette([value for n in range(256) for value in (n, 255 - n, n * 7 % 256)])
        return image
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[case.mode]
    pixels = np.ascontiguousarray(shallow[..., :bands])
    return Image.frombytes(case.mode, (case.width, case.height), pixels.tobytes())


def encoded(case: Case) -> bytes:
    """The file of a case."""
    file = io.BytesIO()
    picture(case).save(file, case.kind, **({"quality": 80} if case.kind == "JPEG" else {"compress_level": 1}))
    return file.getvalue()
