"""transformers folders and the voice detector on a GPU: the worker uses the one it was given, answers as on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import speech, tiny
from support.asking import ask, ask_together
from support.pretrained import serving

from mlserve.archive import pack
from mlserve.handler import Context

pytestmark = pytest.mark.gpu

TEXTS = ["the cat sat on a mat", "dogs run", "where is the blue house"]
TOLERANCE = 1e-2  # TF32 has 10 bits of mantissa
LLM = "llm: {parameters: {max_new_tokens: 8}}\n"


def on_cpu(module: str, handler: str, folder: Path, config: dict[str, Any]) -> list[Any]:
    """What the handler answers in this process, which gives it no GPU."""
    import importlib

    context = Context("m", str(folder), model_yaml_config=config)
    loaded = getattr(importlib.import_module(f"mlserve.handlers.{module}"), handler)()
    loaded.initialize(context)
    return [json.loads(one.body) for one in loaded.handle([{"body": text} for text in TEXTS], context)]


def on_gpu(server: Any, model: str) -> None:
    assert "cuda:0" in str(server.describe(model)["signature"])


def test_a_folder_runs_on_the_worker_s_gpu_and_answers_as_on_the_cpu(tmp_path):
    pytest.importorskip("transformers")
    folder = tiny.bert(tmp_path / "m", "BertForSequenceClassification", num_labels=3)
    expected = on_cpu("huggingface", "HuggingFaceHandler", folder, {})
    with serving(tmp_path / "run", f"m={folder}", settings={"GPU_IDS": "0"}) as server:
        on_gpu(server, "m")
        for answers in (ask_together(server, "m", TEXTS), [ask(server, "m", text) for text in TEXTS]):
            assert [one["label"] for one in answers] == [one["label"] for one in expected]
            assert [one["score"] for one in answers] == pytest.approx([one["score"] for one in expected], abs=TOLERANCE)


def test_vectors_of_sentences_are_made_on_the_gpu(tmp_path):
    pytest.importorskip("transformers")
    folder = tiny.bert(tmp_path / "m", "BertModel")
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    expected = on_cpu("embedding", "EmbeddingHandler", folder, {})
    with serving(tmp_path / "run", f"m={folder}", settings={"GPU_IDS": "0"}) as server:
        on_gpu(server, "m")
        for answer, wanted in zip(ask_together(server, "m", TEXTS), expected, strict=True):
            assert answer == pytest.approx(wanted, abs=TOLERANCE)


def test_text_is_generated_on_the_gpu(tmp_path):
    pytest.importorskip("transformers")
    folder = tiny.gpt2(tmp_path / "m")
    (folder / "model-config.yaml").write_text(LLM)
    expected = on_cpu("llm", "LlmHandler", folder, {"llm": {"parameters": {"max_new_tokens": 8}}})
    with serving(tmp_path / "run", f"m={folder}", settings={"GPU_IDS": "0"}) as server:
        on_gpu(server, "m")
        assert [one["text"] for one in ask_together(server, "m", TEXTS)] == [one["text"] for one in expected]


def test_speech_is_found_on_the_gpu(tmp_path):
    pytest.importorskip("silero_vad")
    pack(model_name="m", version="1.0", handler="audio", export_path=tmp_path)
    body = speech.wav(speech.recording([0.8, 1.6, 1.0, 1.2, 0.7]))
    with serving(tmp_path / "run", "m.mar", store=tmp_path, settings={"GPU_IDS": "0"}) as server:
        on_gpu(server, "m")
        found = server.predict("m", body, content_type="audio/wav").json()["segments"]
    assert [round(one["start"], 1) for one in found] == [0.8, 3.5]
