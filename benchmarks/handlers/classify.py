"""JPEG in, ImageNet class out, with torch and Pillow alone. Runs unchanged on every server and in a loop."""

import io
import os

import torch
from PIL import Image

SIZE, CROP = 256, 224
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Handler:
    """The class form of a handler, and ``load`` and ``run`` for servers that call plain code."""

    def load(self, folder):
        """Load the TorchScript model. The thread count is set here so that every way of running it has the same."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.model = torch.jit.load(os.path.join(folder, "efficientnet_lite0.pt")).eval()

    def preprocess(self, body):
        """JPEG bytes to a normalised float tensor [3, 224, 224]."""
        image = Image.open(io.BytesIO(body)).convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
        image = image.crop((left, top, left + CROP, top + CROP))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(CROP, CROP, 3)
        return (pixels.permute(2, 0, 1).float() / 255 - MEAN) / STD

    def run(self, bodies):
        """Decode and resize each body, run the batch once: {"class": int, "score": float} per body."""
        batch = torch.stack([self.preprocess(body) for body in bodies])
        with torch.inference_mode():
            scores = self.model(batch).softmax(1)
        best, index = scores.max(1)
        return [{"class": int(i), "score": round(float(s), 3)} for i, s in zip(index, best, strict=True)]

    def initialize(self, context):
        """As archives are loaded."""
        self.load(context.system_properties["model_dir"])

    def handle(self, data, context):
        """As archives are asked."""
        return self.run([row.get("data") or row.get("body") for row in data])
