"""Sound in a request's body: a WAV file, or bare PCM samples whose form the content type says.

Only the standard library's ``wave`` reads files: what it does not know (MP3, Ogg, floating-point WAV) is refused.
Bare samples are never guessed: any bytes at all would pass for them.
"""

from __future__ import annotations

import io
import re
import wave
from typing import Any, NamedTuple

import numpy as np

from mlserve.handler import PredictionError

EXPECTED = (
    "a WAV file of PCM samples, or bare 16-bit samples of one channel with content-type: audio/pcm;rate=16000 "
    "(little-endian) or audio/L16;rate=16000 (big-endian)"
)
_BARE = {"audio/pcm": "<i2", "audio/l16": ">i2"}
_RATE = re.compile(r"rate=(\d{1,6})\b")


class Sound(NamedTuple):
    """``samples`` from -1 to 1, one channel, ``float32``; ``rate`` per second."""

    samples: np.ndarray[Any, Any]
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


def sound_of(value: Any, content_type: str = "") -> Sound:
    """The sound in a body. Raises :class:`PredictionError` with status 400."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise PredictionError(400, f"No bytes but a {type(value).__name__}: expected {EXPECTED}")
    data = bytes(value)
    kind, _, parameters = content_type.lower().partition(";")
    if kind.strip() in _BARE:
        found = _bare(data, _BARE[kind.strip()], parameters.replace(" ", ""))
    elif data[:4] == b"RIFF":
        found = _from_wav(data)
    else:
        raise PredictionError(400, f"The body is no WAV file: expected {EXPECTED}")
    if not len(found.samples):
        raise PredictionError(400, "The sound has no samples")
    return found


def silence(seconds: float = 0.1, rate: int = 16000) -> bytes:
    """A WAV file of nothing."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(bytes(2 * int(seconds * rate)))
    return file.getvalue()


def _bare(data: bytes, form: str, parameters: str) -> Sound:
    rate = _RATE.search(parameters)
    if rate is None or not int(rate[1]):
        raise PredictionError(400, f"The content type does not say the rate: expected {EXPECTED}")
    if len(data) % 2:
        raise PredictionError(400, f"{len(data)} bytes are no whole number of 16-bit samples")
    return Sound(np.frombuffer(data, form).astype(np.float32) / 32768, int(rate[1]))


def _from_wav(data: bytes) -> Sound:
    try:
        with wave.open(io.BytesIO(data)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError, ValueError) as error:
        raise PredictionError(400, f"The WAV file cannot be read ({error}): expected {EXPECTED}") from None
    if width not in (1, 2, 3, 4) or rate < 1:
        raise PredictionError(400, f"The WAV file has {width} bytes per sample and {rate} samples a second")
    whole = len(frames) // (width * channels) * channels  # the last frame may be cut off
    samples = _samples(frames[: whole * width], width)
    return Sound(samples.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate)


def _samples(frames: bytes, width: int) -> np.ndarray[Any, Any]:
    """From -1 to 1. One byte is unsigned in WAV, more are signed and little-endian."""
    if width == 1:
        return (np.frombuffer(frames, np.uint8).astype(np.float32) - 128) / 128
    wide = np.zeros((len(frames) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(frames, np.uint8).reshape(-1, width)  # as the upper bytes: the sign is kept
    return np.asarray(wide.view("<i4")[:, 0] / float(1 << 31), np.float32)
