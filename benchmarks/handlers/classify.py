"""JPEG in, ImageNet class out, with torch and Pillow alone. Runs unchanged on mlserve, TorchServe and in a loop."""

import io
import os

import torch
from PIL import Image

SIZE, CROP = 256, 224
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Classifier:
    """The class form of a handler: decode and resize each row, run the batch once, name each row's best class."""

    def initialize(self, context):
        """Load the TorchScript model. The thread count is set here so that every way of running it has the same."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        file = context.manifest["model"]["serializedFile"]
        self.model = torch.jit.load(os.path.join(context.system_properties["model_dir"], file)).eval()

    def preprocess(self, body):
        """JPEG bytes to a normalised float tensor [3, 224, 224]."""
        image = Image.open(io.BytesIO(body)).convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
        image = image.crop((left, top, left + CROP, top + CROP))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(CROP, CROP, 3)
        return (pixels.permute(2, 0, 1).float() / 255 - MEAN) / STD

    def handle(self, data, context):
        """A list of {"class": int, "score": float}, one per row."""
        batch = torch.stack([self.preprocess(row.get("data") or row.get("body")) for row in data])
        with torch.inference_mode():
            scores = self.model(batch).softmax(1)
        best, index = scores.max(1)
        return [{"class": int(i), "score": round(float(s), 3)} for i, s in zip(index, best, strict=True)]
