"""``text_classifier``: a text in, ``{label: probability}`` out, for a bag of words and word pairs.

The archive holds the model and ``source_vocab.pt`` (token -> index). The text is cleaned (HTML, contractions, accents,
punctuation), tokenised and looked up. Texts of a batch go through the model together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlserve.handler import Context, PredictionError

from . import text as texts
from .explaining import within
from .labels import named
from .rows import explained
from .scores import limited, score_range
from .text_handler import TextHandler
from .timing import timed


class TextClassifier(TextHandler):
    """For models called as ``model(tokens, offsets)``, as ``torch.nn.EmbeddingBag`` is. ``ngrams`` is the longest run
    of words that the vocabulary knows.
    """

    ngrams = 2
    min_score = 0.0
    max_score = 1.0

    def initialize(self, context: Context) -> None:
        """Load the model and the vocabulary, and read the options."""
        self.min_score, self.max_score = score_range(context.model_yaml_config, self.min_score, self.max_score)
        super().initialize(context)

    def preprocess(self, data: list[Any]) -> Any:
        """(tokens of all texts, where each starts), and the words of each text; a row without a text is refused."""
        import torch

        tokens: list[int] = []
        offsets: list[int] = []
        words: list[list[str]] = []
        for index, row in enumerate(data):
            try:
                cleaned = self._tokenize(self._clean(_text(row)))
            except PredictionError as error:
                self.refuse(index, explained(error, row))
                continue
            offsets.append(len(tokens))
            words.append(cleaned)
            tokens.extend(self.source_vocab[token] for token in texts.ngrams(cleaned, self.ngrams))
        if not words:
            return None
        made = [
            torch.tensor(one, dtype=torch.long, device=self.device) for one in (tokens, offsets)
        ]  # also of no token
        return tuple(made), words

    def _clean(self, text: str) -> str:
        text = self._expand_contractions(self._remove_html_tags(text).lower())
        return self._remove_punctuation(self._remove_accented_characters(text))

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Logits ``[texts, classes]``."""
        import torch

        (tokens, offsets), _ = data
        with torch.inference_mode():
            return self.model(tokens, offsets)

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """Classes with a probability from ``min_score`` to ``max_score``, in the order of the model's output."""
        rows = data.float().softmax(dim=1).tolist()
        if not limited(self.min_score, self.max_score):
            return [named(range(len(row)), row, self.mapping) for row in rows]
        answers = []
        for row in rows:
            kept = [index for index, value in enumerate(row) if self.min_score <= value <= self.max_score]
            answers.append(named(kept, [row[index] for index in kept], self.mapping))
        return answers

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any = 0) -> list[Any]:
        """How much what ``model.embedding`` gives speaks for class ``target``: ``{words, importances}`` per text.

        That is a row per token of an ``Embedding``, and one row per text of an ``EmbeddingBag``.
        """
        import torch

        (tokens, offsets), words = tensor_data
        bounds = [*offsets.tolist(), len(tokens)]
        lig = self.lig
        targets = target if isinstance(target, list) else [target] * len(words)
        targets, wrong = within(targets, lambda: self.inference(tensor_data))
        answers: list[Any] = []
        for index, text in enumerate(words):
            part = tokens[bounds[index] : bounds[index + 1]]
            attributions = lig.attribute(
                part,
                torch.zeros_like(part),
                additional_forward_args=(torch.zeros(1, dtype=torch.long, device=part.device),),
                target=targets[index],
            )
            importances = self.summarize_attributions(attributions).tolist()
            answers.append(wrong.get(index) or {"importances": importances, "words": self.get_word_token(text)})
        return answers


def _text(row: Any) -> str:
    value = (row.get("data") or row.get("body")) if isinstance(row, Mapping) else row
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError as error:
            raise PredictionError(400, f"The text is not UTF-8: {error}") from None
    if not isinstance(value, str) or not value.strip():
        raise PredictionError(400, f"Expected a text as the body or as the part 'data', got {type(value).__name__}")
    return value
