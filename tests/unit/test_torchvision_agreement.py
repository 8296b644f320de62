"""Images reach the model as torchvision prepares them, to within one step of 255, without torchvision being there.

The table is what torchvision made of the same images: ``support.torchvision_reference`` writes it.
"""

import io

import numpy as np
import pytest
from PIL import Image
from support.reference_images import CASES, COARSE, STRIDE, TABLE, encoded

from mlserve.handler import PredictionError
from mlserve.handlers.vision import ImageTransform

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def table():
    with np.load(TABLE) as stored:
        return dict(stored)


@pytest.mark.parametrize("name", CASES)
def test_no_value_is_further_than_one_step_from_torchvision(name, table):
    case = CASES[name]
    transform = ImageTransform(case.resize, case.crop, case.interpolation)
    file = table[f"{name}/file"].tobytes() if case.kind == "JPEG" else encoded(case)
    made = transform.pixels(transform.decode(Image.open(io.BytesIO(file))))
    pixels = made.transpose(2, 0, 1).astype(int)
    expected = table[f"{name}/pixels"].astype(int)
    assert np.abs(pixels[:, ::STRIDE, ::STRIDE] - expected).max() <= 1
    # Had all of the pixels that are not stored moved by a step one way, their mean would have too.
    assert np.abs(pixels.mean(axis=(1, 2)) - table[f"{name}/means"]).max() <= 0.05
    (normalised,) = transform.normalise(torch.from_numpy(made)[None])
    step = torch.tensor([1 / 255 / std for std in transform.std]).view(3, 1, 1)
    apart = (normalised[:, ::COARSE, ::COARSE] - torch.from_numpy(table[f"{name}/normalised"])).abs()
    assert (apart <= step + 1e-5).all()


@pytest.mark.parametrize("interpolation", ["nearest", "box"])
def test_a_line_of_pixels_is_not_blown_up_to_gigabytes(interpolation):
    line = Image.new("RGB", (100_000, 1))
    with pytest.raises(PredictionError, match="6553600000 pixels") as caught:
        ImageTransform(interpolation=interpolation).pixels(line)
    assert caught.value.status == 400
    assert ImageTransform(interpolation="bilinear").pixels(line).shape == (224, 224, 3)
