"""What a model's worker will import is guessed from its files, and a guess is never an error."""

import json
import zipfile
from pathlib import Path

import pytest

from mlserve.archive.peeking import imports_torch


def archive(path: Path, model: dict[str, str], **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        for name, text in files.items():
            written.writestr(f"{name}.py", text)
    return path


@pytest.mark.parametrize(
    ("model", "source", "expected"),
    [
        ({"handler": "image_classifier", "serializedFile": "w.pt"}, "", True),
        ({"handler": "h.py", "modelFile": "net.py", "serializedFile": "w.onnx"}, "import json", False),
        ({"handler": "h.py:handle"}, "import os\nimport torch.nn as nn", True),
        ({"handler": "h"}, "from ts.torch_handler.base_handler import BaseHandler", True),
        ({"handler": "h"}, "# import torch is slow\ndef handle(data, context): ...", False),
        ({"handler": "missing"}, "", False),
    ],
)
def test_archive_is_taken_for_another_kind(tmp_path: Path, model: dict[str, str], source: str, expected: bool) -> None:
    assert imports_torch(archive(tmp_path / "m.mar", model, h=source)) is expected


def test_files_and_folders_are_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("    from torch import nn\n")
    assert imports_torch(tmp_path / "handler.py")
    assert imports_torch(tmp_path / "anything.safetensors")
    (tmp_path / "MAR-INF").mkdir()
    assert not imports_torch(tmp_path)
    (tmp_path / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"handler": "handler.py"}}')
    assert imports_torch(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", b"[]"])
def test_what_is_no_model_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.mar").write_bytes(content)
    assert not imports_torch(tmp_path / "m.mar")
    assert not imports_torch(tmp_path / "none.mar")
