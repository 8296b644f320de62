"""Image in, tensor out: what the vision handlers share.

Decoding, resizing and cropping are Pillow's, which is also what torchvision does to a PIL image, so the values agree
without torchvision being installed. Normalising is done on the whole batch, on the model's device: the images travel
there as ``uint8``, a quarter of the bytes of ``float32``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlserve.handler import Context, PredictionError

from .base import BaseHandler
from .explaining import captum, within
from .imagefiles import limit, load, opened, rgb, too_large
from .rows import explained
from .timing import timed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

# Filters that are not continuous: on the edge of a step the rounding of the offset of a part picks another pixel.
_STEPS = ("nearest", "box")


@dataclass(frozen=True)
class ImageTransform:
    """What happens to an image before the model sees it; ``image:`` in model-config.yaml sets it.

    ``resize`` is the length of the shorter side and ``crop`` the side of the square cut from the middle, in pixels.
    ``mean`` and ``std`` are per channel, for values from 0 to 1.
    ``draft`` lets libjpeg decode big JPEGs at 1/2, 1/4 or 1/8 of their size, where at least twice ``resize`` is left.
    ``max_pixels`` refuses images that are small files and enormous pictures; the default is Pillow's.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    draft: bool = True
    max_pixels: int = 89478485

    def updated(self, options: Any, source: str = "image in model-config.yaml") -> ImageTransform:
        """A copy with ``options`` applied. Raises ``ValueError`` that names the key at fault."""
        if not isinstance(options, Mapping):
            raise ValueError(f"{source}: expected a mapping, got {options!r}")
        known = {field.name for field in fields(self)}
        for key in options:
            if key not in known:
                raise ValueError(f"{source}: unknown key {key!r}; the keys are {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
        }
        made = replace(self, **values)
        made.check(source)
        return made

    def check(self, source: str) -> None:
        """Raise ``ValueError`` if a value is out of range."""
        if not (isinstance(self.resize, int) and isinstance(self.crop, int) and 0 < self.crop <= self.resize):
            raise ValueError(f"{source}: crop must be from 1 to resize, got crop {self.crop} and resize {self.resize}")
        if not (isinstance(self.max_pixels, int) and self.max_pixels > 0):
            raise ValueError(f"{source}: max_pixels must be a whole number from 1, got {self.max_pixels!r}")
        if not isinstance(self.draft, bool):
            raise ValueError(f"{source}: draft must be true or false, got {self.draft!r}")
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"):
            raise ValueError(f"{source}: unknown interpolation {self.interpolation!r}; try bilinear or bicubic")
        for key in ("mean", "std"):
            value = getattr(self, key)
            if not (isinstance(value, tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value)):
                raise ValueError(f"{source}: {key} must be three numbers, one per channel, got {value!r}")
        if not all(self.std):
            raise ValueError(f"{source}: std must not be 0")

    def decode(self, image: Image) -> Image:
        """The pixels of an opened ``image``, as RGB. Raises :class:`PredictionError` with status 400."""
        return self._decoded(image)[0]

    def prepared(self, image: Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Decode, resize and crop an opened ``image``. Raises as :meth:`decode` and :meth:`pixels` do."""
        return self.pixels(*self._decoded(image))

    def _decoded(self, image: Image) -> tuple[Image, tuple[float, float]]:
        """(RGB image, its true width and height): libjpeg rounds up 2201 / 4, and the picture ends within a pixel.

        Taken for a whole one, it would shift all pixels (by 0.35 of one at the edge of a photo of 2201 x 2201).
        """
        extent: tuple[float, float] = image.size
        if self.draft and image.format in ("JPEG", "MPO"):  # MPO: what phones append a preview or a depth map to
            drafted = image.draft("RGB", (2 * self.resize, 2 * self.resize))  # at least this wide and this high
            if drafted is not None:
                extent = drafted[1][2:]
        return rgb(image), extent

    def pixels(self, image: Image, extent: tuple[float, float] | None = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Resize and crop an RGB ``image``: an array ``[crop, crop, 3]`` of ``uint8``.

        ``extent`` is how much of its width and height is picture, where that is not all. Raises
        :class:`PredictionError` with status 400 for a line that would have to be resized to a huge picture.
        """
        import numpy as np
        from PIL import Image as pillow

        width, height = extent or image.size
        short = min(width, height)
        # torchvision's rounding: the longer side is cut to a whole pixel, so its scale differs a little.
        to = (int(self.resize * width / short), int(self.resize * height / short))
        left, top = (round((side - self.crop) / 2) for side in to)
        resample = pillow.Resampling[self.interpolation.upper()]
        if self.interpolation in _STEPS:
            if to[0] * to[1] > self.max_pixels:
                raise too_large(f"with its shorter side resized it has {to[0] * to[1]} pixels")
            whole = image.resize(to, resample, box=(0, 0, width, height))
            return np.array(whole.crop((left, top, left + self.crop, top + self.crop)))
        scale_x, scale_y = width / to[0], height / to[1]
        box = (left * scale_x, top * scale_y, (left + self.crop) * scale_x, (top + self.crop) * scale_y)
        # Only what the crop keeps is computed; the filter still reads the pixels around it.
        return np.array(image.resize((self.crop, self.crop), resample, box=box))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[n, h, w, 3]`` of ``uint8`` to ``[n, 3, h, w]`` of ``float32``."""
        import torch

        mean = torch.tensor(self.mean, device=pixels.device).mul_(255).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).mul_(255).view(1, 3, 1, 1)
        return pixels.permute(0, 3, 1, 2).to(torch.float32).sub_(mean).div_(std)


class Preprocessing:
    """An :class:`ImageTransform` as a callable for one image: what ``image_processing`` is until a subclass sets it."""

    def __init__(self, transform: ImageTransform) -> None:
        self.transform = transform

    def __call__(self, image: Image) -> torch.Tensor:
        """A ``PIL.Image`` to ``[3, crop, crop]`` of ``float32``, normalised."""
        import torch

        pixels = torch.from_numpy(self.transform.prepared(image))
        return self.transform.normalise(pixels.unsqueeze(0))[0]


class VisionHandler(BaseHandler):
    """Decodes images; a subclass says what the model's output means.

    ``transform`` describes the preprocessing. A subclass may instead set ``image_processing`` to a callable that takes
    the opened ``PIL.Image`` and returns a tensor, for example a ``torchvision.transforms.Compose``.
    """

    transform = ImageTransform()
    image_processing: Callable[[Any], torch.Tensor] = Preprocessing(transform)

    def initialize(self, context: Context) -> None:
        """Read the ``image`` section of model-config.yaml, then load the model."""
        _require_pillow()
        options = (context.model_yaml_config or {}).get("image")
        if options is not None:
            self.transform = self.transform.updated(options)
        if self._processes_itself():
            self.image_processing = Preprocessing(self.transform)
        limited = context.system_properties.get("limit_max_image_pixels", True)
        limit(self.transform.max_pixels if limited else None)
        super().initialize(context)

    @cached_property
    def ig(self) -> Any:
        """Captum's integrated gradients of the model. Raises ``PredictionError`` 501 where there can be none."""
        return captum(self.model).IntegratedGradients(self.model)

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any = 0) -> list[Any]:
        """How much each value of the input tensor speaks for class ``target``: one nested list per item."""
        ig = self.ig
        targets = target if isinstance(target, list) else [target] * len(tensor_data)
        targets, wrong = within(targets, lambda: self.inference(tensor_data[:1]))
        if not isinstance(target, list):
            targets = targets[0]
        attributions = ig.attribute(tensor_data, target=targets, n_steps=15).tolist()
        return [wrong.get(index, attribution) for index, attribution in enumerate(attributions)]

    def _processes_itself(self) -> bool:
        return isinstance(self.image_processing, Preprocessing)

    @timed
    def preprocess(self, data: list[Any]) -> Any:
        """``[n, 3, crop, crop]`` of ``float32`` on the model's device. An item without a readable image is refused."""
        import torch

        items: list[torch.Tensor] = []
        for index, row in enumerate(data):
            try:
                items.append(self._item(_sent(row)))
            except PredictionError as error:
                self.refuse(index, explained(error, row))
        if not items:
            return None
        if all(item.dtype == torch.uint8 for item in items) and self._processes_itself():
            return self.transform.normalise(torch.stack(items).to(self.device))
        return self._together([self._finished(item) for item in items])

    def _together(self, items: list[torch.Tensor]) -> Any:
        import torch

        return torch.stack(items).to(self.device)

    def _item(self, value: Any) -> torch.Tensor:
        """Pixels ``[crop, crop, 3]`` (uint8) of an image, or the tensor ``[3, crop, crop]`` that was sent instead."""
        import torch

        if isinstance(value, list):
            return self._tensor(value)
        with opened(value) as image:
            if self._processes_itself():
                return torch.from_numpy(self.transform.prepared(image))
            load(image)
            return self.image_processing(image)

    def decoded(self, value: Any) -> Image:
        """The whole image that was sent, as RGB. Raises :class:`PredictionError` with status 400."""
        with opened(value) as image:
            return self.transform.decode(image)

    def _finished(self, item: torch.Tensor) -> torch.Tensor:
        import torch

        if self._processes_itself() and item.dtype == torch.uint8:
            return self.transform.normalise(item.unsqueeze(0))[0]
        return item

    def _tensor(self, value: list[Any]) -> torch.Tensor:
        import torch

        side = self.transform.crop
        try:
            tensor = torch.tensor(value, dtype=torch.float32)
        except (ValueError, TypeError, OverflowError) as error:
            raise PredictionError(400, f"The nested list is not a tensor: {error}") from error
        if self._processes_itself() and tensor.shape != (3, side, side):
            raise PredictionError(
                400, f"Expected a tensor of shape [3, {side}, {side}], normalised, got {list(tensor.shape)}"
            )
        return tensor


def _sent(row: Any) -> Any:
    """The image of a row: its part ``data``, its body, or, where an envelope has opened the row, the row itself."""
    if not hasattr(row, "get"):  # unit tests of handlers hand over stand-ins that have little else
        return row
    value = row.get("data")
    return row.get("body") if value is None else value


def _require_pillow() -> None:
    try:
        import numpy
        import PIL
    except ImportError as error:
        raise ImportError(f"Image handlers need Pillow and numpy ({error}): pip install 'mlserve[vision]'") from error
    del numpy, PIL
