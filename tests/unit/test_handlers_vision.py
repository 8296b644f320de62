"""Image in, tensor out: the right values, and only the bad item of a batch refused."""

import base64
import io
import warnings
import zlib
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from support.reference_images import pattern

from mlserve.handler import Context, PredictionError
from mlserve.handlers.vision import ImageTransform, VisionHandler

torch = pytest.importorskip("torch")


class Pixels(VisionHandler):
    """Answers with the mean of what reached the model."""

    def inference(self, data):
        return data.mean(dim=(1, 2, 3))


@pytest.fixture
def make(tmp_path):
    def made(config=None, cls=Pixels, **context):
        handler = cls()
        handler.initialize(Context("m", str(tmp_path), model_yaml_config=config, **context))
        return handler

    return made


def noise(width, height, seed=0):
    """A picture with detail at every scale, so that a wrong filter shows."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int32)
    return np.clip(smooth + random.integers(-40, 41, smooth.shape), 0, 255).astype(np.uint8)


def encoded(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_normalising_follows_mean_and_std_per_channel():
    transform = ImageTransform(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 2, 2, 3)
    out = transform.normalise(pixels)
    assert out.shape == (1, 3, 2, 2)
    assert out.dtype == torch.float32
    assert out[0, :, 0, 0].tolist() == pytest.approx([-1.0, -0.2, 1.0])


@pytest.mark.parametrize("size", [(512, 384), (553, 553), (1031, 517), (300, 1200), (255, 900)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_big_jpegs_decoded_in_draft_mode_stay_close_to_the_full_decode(size, interpolation):
    """Also of sizes that 2, 4 or 8 do not divide: there libjpeg's last row and column are only in part picture."""
    shallow = (pattern(*size)[..., :3] >> 8).astype(np.uint8)
    data = encoded(shallow, "JPEG", quality=90)
    quick, full = (ImageTransform(64, 56, interpolation, draft=draft) for draft in (True, False))
    apart = np.abs(
        quick.prepared(Image.open(io.BytesIO(data))).astype(int)
        - full.prepared(Image.open(io.BytesIO(data))).astype(int)
    )
    assert full.decode(Image.open(io.BytesIO(data))).size == size
    assert apart.max() <= 10
    assert apart.mean() <= 1


def test_photos_of_phones_are_decoded_in_draft_mode_too():
    small = [Image.new("RGB", (8, 8))]
    file = saved(Image.new("RGB", (601, 400)), "MPO", save_all=True, append_images=small)
    image = Image.open(io.BytesIO(file))
    assert image.format == "MPO"
    assert ImageTransform(resize=50, crop=50).decode(image).size == (151, 100)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_draft_mode_leaves_twice_what_is_asked_and_no_more_than_it_must(mode):
    transform = ImageTransform(resize=32, crop=32)
    for short in (1, 31, 32, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1030):
        for size in ((short, short), (short, short * 2 + 1), (short + 7, short)):
            decoded = transform.decode(Image.open(io.BytesIO(saved(Image.new(mode, size), "JPEG"))))
            factor = max(n for n in (1, 2, 4, 8) if n == 1 or short >= n * 64)
            assert decoded.size == tuple(-(-side // factor) for side in size)
            assert min(decoded.size) >= min(short, 64)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_pillow_mode_becomes_rgb(make, mode):
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 40)).convert(mode).save(buffer, "TIFF")
    handler = make({"image": {"resize": 16, "crop": 16}})
    assert handler.preprocess([{"body": buffer.getvalue()}]).shape == (1, 3, 16, 16)


def test_pixels_whose_black_and_white_nobody_knows_are_refused_not_cut_off_at_255(make):
    handler = make({"image": {"resize": 16, "crop": 16}})
    for mode in ("F", "I"):
        [answer] = handler.handle([{"body": saved(Image.new(mode, (20, 20)), "TIFF")}], handler.context)
        assert (answer.status, "32 bits" in answer.message) == (400, True)


def test_bytes_base64_and_data_urls_are_the_same_image(make):
    handler = make({"image": {"resize": 16, "crop": 16}})
    data = encoded(noise(40, 40))
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    values = [data, bytes(data), memoryview(data), text, wrapped, "data:image/png;base64," + text]
    batch = handler.preprocess([{"data": value} for value in values] + [{"body": data}])
    assert all(torch.equal(batch[0], other) for other in batch[1:])


def test_a_stand_in_for_a_row_is_asked_as_a_row_is(make):
    """Handlers' own tests hand over mocks that have only ``get``."""
    handler = make({"image": {"resize": 16, "crop": 16}})
    data = encoded(noise(40, 40))
    batch = handler.preprocess([mock.Mock(get=lambda name: data), {"data": data}])
    assert torch.equal(batch[0], batch[1])


def test_a_nested_list_goes_to_the_model_as_it_is_beside_images(make):
    handler = make({"image": {"resize": 2, "crop": 2}})
    given = torch.arange(12, dtype=torch.float32).reshape(3, 2, 2)
    batch = handler.preprocess([{"body": given.tolist()}, {"body": encoded(noise(4, 4))}])
    assert torch.equal(batch[0], given)
    assert batch.shape == (2, 3, 2, 2)


def test_a_batch_is_stacked_and_moved_to_the_device_once_as_bytes(make, monkeypatch):
    handler = make({"image": {"resize": 16, "crop": 16}})
    stacked, moved, stack, to = [], [], torch.stack, torch.Tensor.to

    def moving(tensor, *args, **kwargs):
        if args and isinstance(args[0], torch.device):
            moved.append((tuple(tensor.shape), tensor.dtype))
        return to(tensor, *args, **kwargs)

    monkeypatch.setattr(torch, "stack", lambda items, *rest: stacked.append(len(items)) or stack(items, *rest))
    monkeypatch.setattr(torch.Tensor, "to", moving)
    batch = handler.preprocess([{"body": encoded(noise(20 + n, 30))} for n in range(3)])
    assert (stacked, moved) == ([3], [((3, 16, 16, 3), torch.uint8)])
    assert batch.shape == (3, 3, 16, 16)


BROKEN = {
    "no image at all": (b"hello", "Not an image that Pillow can read"),
    "an empty body": (b"", "Not an image"),
    "half a JPEG": (bytes(encoded(noise(300, 300), "JPEG"))[:2000], "damaged"),
    "a DDS without a pixel format, for which Pillow raises NotImplementedError": (
        bytes(encoded(noise(40, 40), "DDS")[:80] + bytes(4) + encoded(noise(40, 40), "DDS")[84:]),
        "damaged",
    ),
    "PostScript, which Ghostscript would run": (bytes(encoded(noise(40, 40), "EPS")), "PostScript is a program"),
    "a number beyond all floats": ([[[10**400]]], "not a tensor"),
    "half a PNG": (bytes(encoded(noise(300, 300)))[:20000], "damaged"),
    "text that is not base64": ("hello!", "not base64"),
    "a JSON object": ({"image": 1}, "JSON dict"),
    "nothing": (None, "No image in the request"),
    "a ragged list": ([[1], [1, 2]], "not a tensor"),
    "a list of another shape": ([[[0.0]]], r"shape \[3, 16, 16\]"),
}


@pytest.mark.parametrize(("value", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_only_the_broken_item_of_a_batch_is_refused(make, value, message):
    handler = make({"image": {"resize": 16, "crop": 16}})
    good = {"body": encoded(noise(40, 40))}
    context = handler.context
    first, bad, last = handler.handle([good, {"body": value}, good], context)
    assert first == last
    assert isinstance(first, float)
    assert isinstance(bad, PredictionError)
    assert bad.status == 400
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(bad.message)


def test_a_batch_of_nothing_but_broken_images_never_reaches_the_model(make):
    handler = make()
    handler.inference = None  # calling it would raise
    answers = handler.handle([{"body": b"x"}, {"body": b"y"}], handler.context)
    assert [type(answer) for answer in answers] == [PredictionError] * 2


def test_an_image_beyond_the_pixel_limit_is_refused_unless_the_limit_is_off(make, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # the handler sets it; put it back
    config = {"image": {"resize": 8, "crop": 8, "max_pixels": 100}}
    for side, refused in ((10, False), (12, True), (40, True)):  # Pillow warns up to twice the limit, then raises
        handler = make(config)
        [answer] = handler.handle([{"body": encoded(noise(side, side))}], handler.context)
        assert isinstance(answer, PredictionError) == refused
        if refused:
            assert answer.status == 400
            assert "max_pixels" in answer.message
    handler = make(config, limit_max_image_pixels=False)
    assert isinstance(handler.handle([{"body": encoded(noise(40, 40))}], handler.context)[0], float)


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
@pytest.mark.parametrize(("side", "header", "status"), [(70, 70, 200), (100, 100, 400), (100, 60_000, 400)])
def test_a_picture_that_turns_out_to_be_huge_while_it_is_read_is_refused_too(make, monkeypatch, side, header, status):
    """An icon's directory tells the size of a PNG inside, which has a header of its own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    handler = make({"image": {"resize": 8, "crop": 8, "max_pixels": 5000}})
    file = bytearray(saved(Image.new("RGB", (side, side)), "ICO", sizes=[(side, side)]))
    at = file.index(b"IHDR")
    file[6:8] = bytes((64, 64))
    file[at + 4 : at + 12] = header.to_bytes(4, "big") * 2
    file[at + 17 : at + 21] = zlib.crc32(file[at : at + 17]).to_bytes(4, "big")
    good, answer = handler.handle([{"body": encoded(noise(9, 9))}, {"body": bytes(file)}], handler.context)
    assert isinstance(good, float)
    assert getattr(answer, "status", 200) == status
    assert status == 200 or "max_pixels" in answer.message


def test_reading_an_image_changes_no_filter_of_warnings_which_all_threads_share(make):
    handler = make({"image": {"resize": 8, "crop": 8}})
    before = list(warnings.filters)
    handler.image_processing = lambda image: torch.tensor(warnings.filters == before)
    assert handler.preprocess([{"body": encoded(noise(9, 9))}]).tolist() == [True]


def test_a_subclass_may_bring_its_own_processing(make):
    class Grey(Pixels):
        def image_processing(self, image):
            assert image.mode == "L", "the image arrives as it was sent"
            return torch.from_numpy(np.array(image, dtype=np.float32))[None]

    handler = make(cls=Grey)
    array = noise(5, 5)[..., 0]
    [answer] = handler.handle([{"body": encoded(array)}], handler.context)
    assert answer == pytest.approx(float(array.mean()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 3}, "unknown key 'crop_size'"),
        ({"crop": 300}, "crop must be from 1 to resize"),
        ({"resize": "big"}, "crop must be from 1 to resize"),
        ({"interpolation": "magic"}, "unknown interpolation 'magic'"),
        ({"draft": "no"}, "draft must be true or false, got 'no'"),
        ({"max_pixels": 0}, "max_pixels must be a whole number from 1"),
        ({"mean": [0.5]}, "mean must be three numbers"),
        ({"std": [1, 0, 1]}, "std must not be 0"),
        ([1], "expected a mapping"),
    ],
)
def test_a_wrong_image_section_stops_loading_and_names_the_key(make, options, message):
    with pytest.raises(ValueError, match=message):
        make({"image": options})


def test_options_of_one_model_do_not_leak_into_the_class(make):
    make({"image": {"resize": 16, "crop": 16}})
    assert make().transform == ImageTransform()
