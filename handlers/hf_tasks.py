"""What the handler ``huggingface`` can do: one class per kind of task, each reads an item and answers a batch of them.

The library's pipelines do the work where they batch without a trace in the answer. Feature extraction and question
answering are done here: the pipeline of the first answers with the vectors of padding as well, newer versions of the
library have no pipeline for the second.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlserve.handler import PredictionError

from .copies import copied
from .pretrained import FLAG, Check, number, one_of, whole
from .vision import ImageTransform, VisionHandler

if TYPE_CHECKING:
    from typing_extensions import Self

ARCHITECTURES: Mapping[str, str] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "Model": "feature-extraction",
}
"""How the name of an architecture ends -> its task."""

AUTO: Mapping[str, str] = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "text-generation": "AutoModelForCausalLM",
    "image-classification": "AutoModelForImageClassification",
    "feature-extraction": "AutoModel",
}
"""Task -> the class of ``transformers`` that loads its models."""

_TOP: dict[str, Check] = {"top_k": whole(1), "function_to_apply": one_of("sigmoid", "softmax", "none")}


def task_of(config: Mapping[str, Any]) -> str:
    """The task of a model by ``architectures`` in its ``config.json``. Raises ``ValueError`` where they don't say."""
    named = [str(one) for one in config.get("architectures") or ()]
    for ending, task in ARCHITECTURES.items():
        if named and named[0].endswith(ending):
            return task
    raise ValueError(
        f"The task does not follow from architectures {named} in config.json: set huggingface: {{task: …}} in "
        f"model-config.yaml to one of {', '.join(AUTO)}"
    )


class Unexpected(PredictionError):
    """An item of another form; whoever catches it adds what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class Task(Protocol):
    """``expected`` says in words what an item is, ``sample`` is one; ``parameters`` are those a request may bring."""

    expected: str
    sample: Any
    parameters: Mapping[str, Check]

    def read(self, value: Any, parameters: Mapping[str, Any]) -> Any:
        """The item in the pipeline's own form. Raises :class:`PredictionError` with status 400."""

    def run(self, items: list[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """The answers to a batch whose items have the same parameters: one forward pass."""


class Texts:
    """Checks that texts fit the model. ``limit`` is in tokens, ``None`` for any; ``cut`` shortens what is longer."""

    def __init__(self, tokenizer: Any, limit: int | None, cut: bool) -> None:
        self.tokenizer, self.limit, self.cut = tokenizer, limit, cut
        if limit is not None:
            tokenizer.model_max_length = limit

    def __copy__(self) -> Self:
        return copied(self, tokenizer=copy.deepcopy(self.tokenizer))

    def fitting(self, *texts: str, more: int = 0) -> None:
        """Raise :class:`PredictionError` 400 where the texts, and ``more`` tokens behind them, are too long."""
        if self.limit is None or self.cut:
            return
        count = len(self.tokenizer(*texts, verbose=False)["input_ids"])
        if count + more > self.limit:
            new = f" and {more} new ones" if more else ""
            raise PredictionError(
                400,
                f"The text has {count} tokens{new}; the model takes {self.limit}. huggingface: {{truncation: true}} "
                "in model-config.yaml cuts long texts",
            )


class PipedTexts:
    """A pipeline over texts. A copy has a tokenizer of its own: each call sets on it how it cuts and pads."""

    def __init__(self, pipe: Any, texts: Texts) -> None:
        self.pipe, self.texts = pipe, texts

    def __copy__(self) -> Self:
        made = copied(self, pipe=copy.copy(self.pipe), texts=copy.copy(self.texts))
        made.pipe.tokenizer = made.texts.tokenizer
        return made


class TextClassification(PipedTexts):
    """A pipeline over texts and pairs of texts."""

    expected = 'a text as the body, a JSON string, or {"text": "…", "text_pair": "…"}'
    sample = "warm up"
    parameters: Mapping[str, Check] = _TOP

    def read(self, value: Any, parameters: Mapping[str, Any]) -> Any:
        """See :class:`Task`."""
        if isinstance(value, Mapping) and {"text"} <= set(value) <= {"text", "text_pair"}:
            texts = [text(value[key]) for key in ("text", "text_pair") if key in value]
            self.texts.fitting(*texts)
            return dict(value)
        self.texts.fitting(text(value))
        return value

    def run(self, items: list[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """See :class:`Task`."""
        answers: list[Any] = self.pipe(items, batch_size=len(items), truncation=self.texts.cut, **parameters)
        return answers


class TokenClassification(PipedTexts):
    """A pipeline over texts."""

    expected = "a text as the body, or a JSON string"
    sample = "warm up"
    parameters: Mapping[str, Check] = {"aggregation_strategy": one_of("none", "simple", "first", "average", "max")}

    def read(self, value: Any, parameters: Mapping[str, Any]) -> str:
        """See :class:`Task`."""
        self.texts.fitting(text(value))
        return str(value)

    def run(self, items: list[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """See :class:`Task`."""
        answers: list[Any] = self.pipe(items, batch_size=len(items), **parameters)
        return answers


class TextGeneration(PipedTexts):
    """A pipeline over prompts; the handler ``llm`` streams and takes parameters of its own for each item of a batch."""

    expected = "a text as the body, or a JSON string"
    sample: Mapping[str, Any] = {"inputs": "warm up", "parameters": {"max_new_tokens": 2}}
    parameters: Mapping[str, Check] = {
        "max_new_tokens": whole(1),
        "do_sample": FLAG,
        "temperature": number(0.01, 100),
        "top_k": whole(1),
        "top_p": number(0.01, 1),
        "return_full_text": FLAG,
    }

    def __init__(self, pipe: Any, texts: Texts) -> None:
        super().__init__(pipe, texts)
        self.new_tokens = min(128, (texts.limit or 256) // 2)

    def read(self, value: Any, parameters: Mapping[str, Any]) -> str:
        """See :class:`Task`."""
        new, limit = parameters.get("max_new_tokens", self.new_tokens), self.texts.limit
        if self.texts.cut and limit is not None and new >= limit:
            raise PredictionError(400, f"{new} new tokens leave no room for the text; the model takes {limit} with it")
        self.texts.fitting(text(value), more=new)
        return str(value)

    def run(self, items: list[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """See :class:`Task`."""
        # The pipeline samples unless it is told not to; here the same request gets the same answer.
        sample = any(name in parameters for name in ("temperature", "top_k", "top_p"))
        chosen = {"max_new_tokens": self.new_tokens, "do_sample": sample, **parameters}
        if self.texts.cut and self.texts.limit is not None:
            chosen["handle_long_generation"] = "hole"  # keeps the end of the text, as much as the new tokens leave
        answers: list[Any] = self.pipe(items, batch_size=len(items), **chosen)
        return answers


class ImageClassification:
    """A pipeline over images. Only bytes are taken: the pipeline would open paths and fetch URLs."""

    expected = "the bytes of a JPEG, PNG or other image file as the body or as the part 'data'"
    parameters: Mapping[str, Check] = _TOP

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.sample = pipe, grey()
        self._images = VisionHandler()
        self._images.transform = ImageTransform(draft=False)  # as the pipeline decodes

    def read(self, value: Any, parameters: Mapping[str, Any]) -> Any:
        """See :class:`Task`."""
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise Unexpected(f"Cannot read an image from a {type(value).__name__}")
        return self._images.decoded(value)

    def run(self, items: list[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """See :class:`Task`."""
        answers: list[Any] = self.pipe(items, batch_size=len(items), **parameters)
        return answers


class FeatureExtraction:
    """Vectors of all tokens of a text, ``[1, tokens, hidden]`` as the pipeline has it."""

    expected = "a text as the body, or a JSON string"
    sample = "warm up"
    parameters: Mapping[str, Check] = {}

    def __init__(self, model: Any, texts: Texts) -> None:
        self.model, self.texts = model, texts

    def __copy__(self) -> Self:
        return copied(self, texts=copy.copy(self.texts))

    def read(self, value: Any, parameters: Mapping[str, Any]) -> str:
        """See :class:`Task`."""
        self.texts.fitting(text(value))
        return str(value)

    def run(self, items: list[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """See :class:`Task`."""
        import torch

        encoded = self.texts.tokenizer(items, padding=True, truncation=self.texts.cut, return_tensors="pt")
        encoded = encoded.to(self.model.device)
        with torch.inference_mode():
            vectors = self.model(**encoded).last_hidden_state.float().cpu()
        kept = encoded["attention_mask"].bool().cpu()
        return [row[mask].unsqueeze(0).numpy() for row, mask in zip(vectors, kept, strict=True)]


def grey(side: int = 256) -> bytes:
    """An image of nothing."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (side, side), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def text(value: Any) -> str:
    """``value`` if it is a text with something in it. Raises :class:`Unexpected`."""
    if not isinstance(value, str):
        raise Unexpected(f"No text but a JSON {type(value).__name__}")
    if not value.strip():
        raise Unexpected("The text is empty")
    return value
