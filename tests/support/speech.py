"""Sound that a voice detector takes for speech, made of nothing: vowels by their formants, fricatives, pauses."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from typing import Any

import numpy as np

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))  # Hz
WIDTHS = (80.0, 100.0, 140.0)  # Hz


def speech(seconds: float, rate: int = 16000, seed: int = 0, pitch: float = 120.0) -> np.ndarray[Any, Any]:
    """Syllables of a fifth of a second: a fricative, then a voiced sound that glides from vowel to vowel."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    fundamental = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time + seed) + 0.03 * np.sin(2 * np.pi * 4.3 * time))
    phase = 2 * np.pi * np.cumsum(fundamental) / rate
    marks = np.arange(0, seconds + 0.4, 0.2)
    vowels = np.array([VOWELS[one] for one in random.integers(0, len(VOWELS), len(marks))], float)
    formants = [np.interp(time, marks, vowels[:, one]) for one in range(3)]
    voice = np.zeros_like(time)
    for harmonic in range(1, int(rate / 2 / pitch / 1.2)):
        frequency = harmonic * fundamental
        gain = sum(1 / (1 + ((frequency - one) / width) ** 2) for one, width in zip(formants, WIDTHS, strict=True))
        voice += (gain + 0.02) / harmonic**0.5 * np.sin(harmonic * phase)
    syllable = (time % 0.2) / 0.2
    voice *= np.clip(np.sin(np.pi * syllable), 0, 1) ** 0.5
    hiss = np.diff(random.standard_normal(len(time) + 1)) * (syllable < 0.2) * 0.3
    return 0.25 * (voice + hiss) / np.abs(voice).max()


def recording(parts: Sequence[float], rate: int = 16000, seed: int = 0) -> np.ndarray[Any, Any]:
    """Pauses and speech in turn, beginning with a pause, each so many seconds long, over a little noise."""
    pieces = [
        np.zeros(int(seconds * rate)) if at % 2 == 0 else speech(seconds, rate, seed + at, 110 + 15 * (seed % 4))
        for at, seconds in enumerate(parts)
    ]
    sound = np.concatenate(pieces)
    return sound + 0.0005 * np.random.default_rng(seed).standard_normal(len(sound))


def pcm(sound: np.ndarray[Any, Any]) -> bytes:
    """16 bits a sample, little-endian."""
    return (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()


def wav(sound: np.ndarray[Any, Any], rate: int = 16000, channels: int = 1, width: int = 2) -> bytes:
    """A WAV file of ``width`` bytes a sample, the same sound on every channel."""
    scaled = np.clip(np.repeat(sound, channels), -1, 1) * (2 ** (8 * width - 1) - 1)
    if width == 1:
        data = (scaled + 128).astype(np.uint8).tobytes()
    else:
        data = scaled.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(data)
    return file.getvalue()
