"""Writes ``tests/fixtures/torchvision_preprocessing.npz``: what torchvision makes of ``support.reference_images``.

In an environment with torch, torchvision, Pillow and numpy, from the repository's root::

    PYTHONPATH=tests python -m support.torchvision_reference

The images are read as ``torchvision.datasets.ImageFolder`` reads them and go through ``Resize``, ``CenterCrop``,
``ToTensor`` and ``Normalize``. Only grey values of 16 bits are brought to 8 first, by torchvision's ``to_dtype``, since
``ToTensor`` makes signed integers of them, which ``Normalize`` refuses.

Per case the table holds every ``STRIDE``-th value of every ``STRIDE``-th row (uint8, ``[3, h, w]``), the means of the
whole channels, and every ``COARSE``-th normalised value; the versions that made it; and the JPEG files.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image

from support.reference_images import CASES, COARSE, STRIDE, TABLE, Case, encoded

_OPERATORS = """
nms qnms roi_align qroi_align _roi_align_backward ps_roi_align _ps_roi_align_backward roi_pool _roi_pool_backward
ps_roi_pool _ps_roi_pool_backward deform_conv2d _deform_conv2d_backward
"""


def import_torchvision() -> Any:
    """torchvision, also where its compiled library does not load, as a build for CUDA on a machine without it.

    Its import only wants the names of the operators defined; transforms of PIL images use none of them.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS.split():
            library.define(f"{name}(Tensor unused) -> Tensor")
        import torchvision
    import torchvision.transforms.v2

    return torchvision


def opened(case: Case, file: bytes, torchvision: Any) -> Image.Image:
    """The RGB image of a file, as ``ImageFolder`` has it."""
    if not case.mode.startswith("I;16"):
        return Image.open(io.BytesIO(file)).convert("RGB")  # torchvision.datasets.folder.pil_loader
    deep = torch.from_numpy(np.asarray(Image.open(io.BytesIO(file))).astype(np.uint16))
    grey = torchvision.transforms.v2.functional.to_dtype(deep[None], torch.uint8, scale=True)
    return torchvision.transforms.functional.to_pil_image(grey).convert("RGB")


def main() -> None:
    """Make and write the table."""
    torchvision = import_torchvision()
    t = torchvision.transforms
    versions = {"torchvision": torchvision.__version__, "torch": torch.__version__, "Pillow": Image.__version__}
    table: dict[str, Any] = {"versions": np.array([f"{name} {version}" for name, version in versions.items()])}
    for name, case in CASES.items():
        file = encoded(case)
        resize = t.Resize(case.resize, interpolation=t.InterpolationMode(case.interpolation))
        values = t.Compose([resize, t.CenterCrop(case.crop), t.ToTensor()])(opened(case, file, torchvision))
        normalised = t.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])(values)
        pixels = (values * 255).round().to(torch.uint8)
        assert torch.equal(pixels.float() / 255, values)
        table[f"{name}/pixels"] = pixels[:, ::STRIDE, ::STRIDE].numpy()
        table[f"{name}/means"] = pixels.double().mean(dim=(1, 2)).numpy()
        table[f"{name}/normalised"] = normalised[:, ::COARSE, ::COARSE].numpy()
        if case.kind == "JPEG":
            table[f"{name}/file"] = np.frombuffer(file, dtype=np.uint8)
    TABLE.parent.mkdir(exist_ok=True)
    np.savez_compressed(TABLE, **table)
    sys.stdout.write(f"{TABLE}: {TABLE.stat().st_size} bytes, {len(CASES)} images, {versions}\n")


if __name__ == "__main__":
    main()
