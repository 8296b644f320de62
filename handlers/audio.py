"""``audio``: sound in, the segments of it that are speech out, by Silero's voice activity detector.

``{"segments": [{"start": 0.8, "end": 2.4}, …], "seconds": 5.3}``, all in seconds. Of a batch all sounds of one rate go
through the model together, window by window: it is recurrent. The model is the archive's ``--serialized-file``, as
TorchScript or ONNX, or else the one that the package silero-vad carries; that package also makes the segments. The
section ``audio`` of model-config.yaml: its thresholds and durations by their names there, and ``onnx: true`` for the
package's ONNX file.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mlserve.handler import Context, PredictionError

from . import pretrained
from .copies import copied
from .items import body_of
from .optional import required
from .pretrained import Check, number
from .readying import make_ready
from .rows import read_rows
from .sound import EXPECTED, Sound, silence, sound_of

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

logger = logging.getLogger(__name__)

OPTIONS: Mapping[str, Check] = {
    "threshold": number(0, 1),
    "neg_threshold": number(0, 1),
    "min_speech_duration_ms": number(0, 1e6),
    "max_speech_duration_s": number(0.1, 1e6),
    "min_silence_duration_ms": number(0, 1e6),
    "speech_pad_ms": number(0, 1e6),
}
WINDOW = {16000: 512, 8000: 256}  # samples a second -> samples of a window, which the model was trained with


class AudioHandler:
    """The handler class."""

    model_signature: Mapping[str, Any]  # shown by ``describe``

    def initialize(self, context: Context) -> None:
        """Load the model. Raises ``ValueError`` or ``ImportError`` with what is wrong."""
        options = pretrained.section(context, "audio", (*OPTIONS, "onnx"))
        onnx = options.pop("onnx", False)
        self.options = pretrained.defaults({"parameters": options}, OPTIONS, "audio")
        self.silero = required("silero_vad", "audio", "silero-vad", "'mlserve[audio]'")
        named = ((context.manifest or {}).get("model") or {}).get("serializedFile")
        path = Path(context.system_properties["model_dir"], named) if named else None
        if onnx or (path is not None and path.suffix == ".onnx"):
            required("onnxruntime", "audio with an ONNX file", "onnxruntime", "'mlserve[onnx]'")
        self.device = pretrained.device_of(context)
        self.model = self._loaded(path, bool(onnx))
        self.model_signature = {
            "runtime": f"silero-vad {self.silero.__version__}, {type(self.model).__name__}, {self.device}",
            "input": EXPECTED,
            "output": '{"segments": [{"start": seconds, "end": seconds}], "seconds": length}',
        }
        logger.info("%s", self.model_signature["runtime"])
        make_ready(self.handle, context, silence())

    def __copy__(self) -> Self:
        # It is recurrent: reset_states() of one thread would be the middle of another's sound. An ONNX session is not.
        script = hasattr(self.model, "parameters")
        return copied(self, model=copy.deepcopy(self.model) if script else copy.copy(self.model))

    def _loaded(self, path: Path | None, onnx: bool) -> Any:
        import torch

        if path is None:
            model = self.silero.load_silero_vad(onnx=onnx)
        elif path.suffix == ".onnx":
            model = self.silero.utils_vad.OnnxWrapper(str(path), force_onnx_cpu=True)
        else:
            model = self.silero.utils_vad.init_jit_model(str(path), torch.device("cpu"))
        if not hasattr(model, "reset_states"):
            raise ValueError(f"{path} is no Silero voice activity detector: it has no reset_states()")
        if isinstance(model, torch.nn.Module):
            return model.to(self.device)
        self.device = torch.device("cpu")  # its ONNX session runs there
        return model

    def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch: one element per row."""
        begun = perf_counter()

        def read(index: int) -> tuple[int, Sound]:
            sound = sound_of(body_of(data[index]), content_type(context, index))
            return model_rate(sound), sound

        heard, answers = read_rows(range(len(data)), read, data)
        groups: dict[int, list[tuple[int, Sound]]] = {}
        for index, (rate, sound) in heard.items():
            groups.setdefault(rate, []).append((index, sound))
        ready = perf_counter()
        for rate, members in groups.items():
            sounds = [sound.samples[:: sound.rate // rate] for _, sound in members]
            for (index, sound), length, one in zip(
                members, map(len, sounds), self.probabilities(sounds, rate), strict=True
            ):
                answers[index] = pretrained.answer(self.segments(one, sound, rate, length))
        context.phases.add("preprocess", ready - begun)
        context.phases.add("inference", perf_counter() - ready)
        return [answers[index] for index in range(len(data))]

    def probabilities(self, sounds: Sequence[np.ndarray[Any, Any]], rate: int) -> list[list[float]]:
        """For every sound, of each of its windows how probably it is speech."""
        import torch

        size = WINDOW[rate]
        counts = [-(-len(sound) // size) for sound in sounds]
        together = torch.zeros(len(sounds), max(counts) * size)
        for row, sound in zip(together, sounds, strict=True):
            row[: len(sound)] = torch.from_numpy(sound.copy())
        together = together.to(self.device)
        self.model.reset_states()
        with torch.inference_mode():
            steps = [self.model(together[:, at : at + size], rate) for at in range(0, together.shape[1], size)]
        found: list[list[float]] = torch.cat(steps, dim=1).cpu().tolist()
        return [one[:count] for one, count in zip(found, counts, strict=True)]

    def segments(self, probabilities: list[float], sound: Sound, rate: int, length: int) -> dict[str, Any]:
        """The answer to a sound that was ``length`` samples long at the model's ``rate``."""
        found = self.silero.get_speech_timestamps_from_probs(
            probabilities, sampling_rate=rate, audio_length_samples=length, **self.options
        )
        times = [{edge: round(one[edge] / rate, 3) for edge in ("start", "end")} for one in found]
        return {"segments": times, "seconds": round(sound.seconds, 3)}


def model_rate(sound: Sound) -> int:
    """The rate at which the model hears a sound. Raises :class:`PredictionError` 400 if it needed resampling."""
    if sound.rate in WINDOW:
        return sound.rate
    if sound.rate % 16000 == 0:
        return 16000  # every n-th sample, as the package does it
    raise PredictionError(400, f"The sound has {sound.rate} samples a second: expected 8000, or 16000 or a multiple")


def content_type(context: Context, index: int) -> str:
    """The request's ``Content-Type`` header."""
    headers = context.get_all_request_header(index)
    return next((str(value) for name, value in headers.items() if name.lower() == "content-type"), "")
