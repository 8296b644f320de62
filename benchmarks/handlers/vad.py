"""Sound in (WAV, 16 kHz, mono, 16 bit), share of speech out, by silero-vad as TorchScript. Runs on every server.

The model is recurrent: a batch goes through window by window, each sound padded with silence to the longest.
"""

import io
import os
import wave

import torch

RATE, WINDOW = 16000, 512


class Handler:
    """The class form of a handler, and ``load`` and ``run`` for servers that call plain code."""

    def load(self, folder):
        """Load the TorchScript model; one thread, as its windows are too small to share."""
        torch.set_num_threads(1)
        self.model = torch.jit.load(os.path.join(folder, "silero_vad.jit")).eval()

    def samples(self, body):
        """WAV bytes to a float tensor in [-1, 1)."""
        with wave.open(io.BytesIO(body)) as sound:
            return torch.frombuffer(bytearray(sound.readframes(sound.getnframes())), dtype=torch.int16).float() / 32768

    def run(self, bodies):
        """{"windows": int, "speech": share of windows above 0.5} per body."""
        sounds = [self.samples(body) for body in bodies]
        counts = [len(sound) // WINDOW for sound in sounds]
        batch = torch.zeros(len(sounds), max(counts) * WINDOW)
        for row, sound in zip(batch, sounds, strict=True):
            row[: min(len(sound), len(row))] = sound[: len(row)]
        self.model.reset_states()
        with torch.inference_mode():
            windows = [self.model(piece, RATE)[:, 0] for piece in batch.split(WINDOW, 1)]
            speech = (torch.stack(windows, 1) > 0.5).tolist()
        return [
            {"windows": count, "speech": round(sum(row[:count]) / count, 3)}
            for count, row in zip(counts, speech, strict=True)
        ]

    def initialize(self, context):
        """As archives are loaded."""
        self.load(context.system_properties["model_dir"])

    def handle(self, data, context):
        """As archives are asked."""
        return self.run([row.get("data") or row.get("body") for row in data])
