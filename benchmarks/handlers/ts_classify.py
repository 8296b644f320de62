"""EfficientNet as a TorchServe user writes it: a BaseHandler with its three hooks, imported from ``ts``."""

import io
import os

import torch
from PIL import Image
from ts.torch_handler.base_handler import BaseHandler

SIZE, CROP = 256, 224
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class EfficientNetHandler(BaseHandler):
    """JPEG in, ImageNet class out; the base class loads the TorchScript file."""

    def initialize(self, context):
        """As the base class, with every core for torch: on both servers and in the loop."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        super().initialize(context)

    def preprocess(self, data):
        """One batch tensor [n, 3, 224, 224]."""
        return torch.stack([self.tensor(row.get("data") or row.get("body")) for row in data])

    def tensor(self, body):
        """JPEG bytes to a normalised float tensor [3, 224, 224]."""
        image = Image.open(io.BytesIO(body)).convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
        image = image.crop((left, top, left + CROP, top + CROP))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(CROP, CROP, 3)
        return (pixels.permute(2, 0, 1).float() / 255 - MEAN) / STD

    def postprocess(self, data):
        """A list of {"class": int, "score": float}, one per row."""
        best, index = data.softmax(1).max(1)
        return [{"class": int(i), "score": round(float(s), 3)} for i, s in zip(index, best, strict=True)]
