"""``embedding``: a text in, the vector of the sentence out, as a JSON array.

Serves sentence-transformers folders (``modules.json`` says how tokens are pooled, whether the vector is normalised and
where texts are cut) and, with ``embedding: {pooling: mean, normalize: true}`` in model-config.yaml, any encoder of
``transformers``. The package sentence-transformers is not needed. On a CPU the texts of a batch are computed in groups
of similar length, on a GPU in one forward pass.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from mlserve.grouping import groups
from mlserve.handler import Context, PredictionError

from . import pretrained
from .copies import copied
from .readying import make_ready
from .rows import read_rows

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

KNOWN = (*pretrained.SHARED, "pooling", "normalize", "max_length")
POOLING = ("mean", "cls", "max")
CALL = 100.0  # tokens that cost as much as a call does by itself, on a CPU
EXPECTED = 'a text as the body, a JSON string, or {"text": "…"}'


class Settings(NamedTuple):
    """How tokens become one vector. ``max_length`` is in tokens; longer texts are cut. ``prompt`` goes before each."""

    pooling: str = "mean"
    normalize: bool = False
    max_length: int | None = None
    prompt: str = ""


class EmbeddingHandler:
    """The handler class."""

    model_signature: Mapping[str, Any]  # shown by ``describe``

    def initialize(self, context: Context) -> None:
        """Load the folder. Raises ``ValueError`` or ``ImportError`` with what is wrong."""
        transformers = pretrained.library("embedding")
        options = pretrained.section(context, "embedding", KNOWN)
        folder = pretrained.folder_of(context, options, "embedding")
        self.settings = settings_of(folder, options)
        self.device = pretrained.device_of(context)
        self.tokenizer = pretrained.load_tokenizer(transformers, folder, options)
        # No pooling here reads the model's own pooler, and many folders come without its weights.
        self.model = pretrained.load_model(
            transformers.AutoModel, folder, options, self.device, lambda key: "pooler" in key
        )
        limits = [self.settings.max_length, pretrained.longest(self.tokenizer, self.model.config)]
        self.limit = min((one for one in limits if one), default=None)
        self.model_signature = {
            "runtime": f"transformers {transformers.__version__}, {type(self.model).__name__}, {self.device}",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1], "batch_axis": 0}],
            "outputs": [
                {
                    "name": "embedding",
                    "datatype": "FP32",
                    "shape": [-1, int(self.model.config.hidden_size)],
                    "batch_axis": 0,
                }
            ],
        }
        logger.info("%s: %s", folder.name, self.settings)
        make_ready(self.handle, context, "warm up")

    def __copy__(self) -> Self:
        return copied(self, tokenizer=copy.deepcopy(self.tokenizer))

    def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch: one element per row."""
        begun = perf_counter()
        texts, answers = read_rows(data, text_of)
        ready = perf_counter()
        vectors = self.embed(list(texts.values())) if texts else ()
        done = perf_counter()
        for index, vector in zip(texts, vectors, strict=True):
            answers[index] = pretrained.answer(vector)
        context.phases.add("preprocess", ready - begun)
        context.phases.add("inference", done - ready)
        context.phases.add("postprocess", perf_counter() - done)
        return [answers[index] for index in range(len(data))]

    def embed(self, texts: list[str]) -> Any:
        """The vectors of ``texts``: an array ``[n, hidden]`` of ``float32``."""
        import numpy as np

        prompted = [self.settings.prompt + text.strip() for text in texts]
        encoded = self.tokenizer(prompted, truncation=self.limit is not None, max_length=self.limit)
        lengths = [len(tokens) for tokens in encoded["input_ids"]]
        together = groups(lengths, CALL) if str(self.device) == "cpu" else [list(range(len(texts)))]
        vectors = [
            self._forward({key: [column[index] for index in rows] for key, column in encoded.items()})
            for rows in together
        ]
        found = np.empty((len(texts), vectors[0].shape[1]), np.float32)
        for rows, values in zip(together, vectors, strict=True):
            found[rows] = values
        return found

    def _forward(self, encoded: dict[str, list[list[int]]]) -> Any:
        """The vectors of tokenised texts, padded to the longest."""
        import torch

        padded = self.tokenizer.pad(encoded, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            tokens = self.model(**padded).last_hidden_state
            vectors = pooled(tokens, padded["attention_mask"], self.settings.pooling)
            if self.settings.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.float().cpu().numpy()


def pooled(tokens: Any, mask: Any, pooling: str) -> Any:
    """``[n, tokens, hidden]`` to ``[n, hidden]``; what ``mask`` leaves out has no say."""
    if pooling == "cls":
        first = mask.argmax(dim=1)  # not 0 where a tokenizer pads on the left
        return tokens[range(len(tokens)), first]
    wide = mask.unsqueeze(-1).to(tokens.dtype)
    if pooling == "max":
        return tokens.masked_fill(wide == 0, float("-inf")).amax(dim=1)
    return (tokens * wide).sum(dim=1) / wide.sum(dim=1).clamp(min=1e-9)


def settings_of(folder: Path, options: Mapping[str, Any]) -> Settings:
    """What the folder says, with the options laid over it. Raises ``ValueError`` for what cannot be served."""
    settings = _from_folder(folder)
    for key in ("pooling", "normalize", "max_length"):
        if key in options:
            settings = settings._replace(**{key: options[key]})
    if settings.pooling not in POOLING:
        raise ValueError(f"embedding: pooling must be one of {', '.join(POOLING)}, got {settings.pooling!r}")
    if not isinstance(settings.normalize, bool):
        raise ValueError(f"embedding: normalize must be true or false, got {settings.normalize!r}")
    if settings.max_length is not None and (type(settings.max_length) is not int or settings.max_length < 3):
        raise ValueError(f"embedding: max_length must be a whole number from 3, got {settings.max_length!r}")
    return settings


def _from_folder(folder: Path) -> Settings:
    modules = _read(folder / "modules.json")
    if not modules:
        return Settings()
    settings, with_prompt = Settings(), True
    for module in modules:
        kind, place = str(module.get("type", "")).rpartition(".")[2], folder / str(module.get("path") or "")
        if kind == "Pooling":
            config = _read(place / "config.json")
            settings = settings._replace(pooling=_pooling(config))
            with_prompt = config.get("include_prompt") is not False
        elif kind == "Normalize":
            settings = settings._replace(normalize=True)
        elif kind != "Transformer":
            raise ValueError(f"{folder / 'modules.json'} has a {kind} layer, which the handler embedding does not know")
    limit = _read(folder / "sentence_bert_config.json").get("max_seq_length")
    whole = _read(folder / "config_sentence_transformers.json")
    prompt = (whole.get("prompts") or {}).get(whole.get("default_prompt_name")) or ""
    if prompt and not with_prompt:
        raise ValueError(f"{folder} leaves its prompt out of the pooling, which the handler embedding cannot do")
    return settings._replace(max_length=limit, prompt=str(prompt))


def _pooling(config: Mapping[str, Any]) -> str:
    """The way of pooling that a ``1_Pooling/config.json`` chooses: newer ones name it, older ones have flags."""
    if config.get("pooling_mode"):
        return str(config["pooling_mode"])
    flags = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    return flags.get(chosen[0], chosen[0]) if len(chosen) == 1 else " and ".join(chosen)


def _read(file: Path) -> Any:
    """A JSON file; an empty mapping where there is none."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None


def text_of(row: Any) -> str:
    """The text of a row. Raises :class:`PredictionError` with status 400."""
    value, _ = pretrained.request_of(row)
    if isinstance(value, Mapping) and set(value) == {"text"}:
        value = value["text"]
    if not isinstance(value, str):
        raise PredictionError(400, f"Expected {EXPECTED}, got a JSON {type(value).__name__}")
    if not value.strip():
        raise PredictionError(400, f"The text is empty: expected {EXPECTED}")
    return value
