"""Question answering by span: where in a context the answer to a question stands.

The answers are those of the library's pipeline of that name, which its newer versions don't have: contexts that are too
long are cut into windows that overlap; of every window the spans are scored by the product of the probabilities of
their two ends; the best of all windows answers. All windows of all items of a batch are one forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlserve.handler import PredictionError

from .copies import copied
from .hf_tasks import Unexpected, text
from .pretrained import Check, whole

if TYPE_CHECKING:
    import numpy as np

LENGTH, OVERLAP = 384, 128  # tokens of a window, and of two neighbours together; the pipeline's


class QuestionAnswering:
    """A task of the handler ``huggingface``."""

    expected = '{"question": "…", "context": "…"}'
    sample: Mapping[str, str] = {"question": "what?", "context": "warm up"}
    parameters: Mapping[str, Check] = {"top_k": whole(1), "max_answer_len": whole(1)}

    def __init__(self, model: Any, tokenizer: Any, limit: int | None) -> None:
        if not tokenizer.is_fast:
            raise ValueError("question-answering needs a fast tokenizer (tokenizer.json): it knows where tokens stand")
        self.model, self.tokenizer = model, tokenizer
        self.length = min(LENGTH, limit or LENGTH)
        self.overlap = min(OVERLAP, self.length // 2)

    def __copy__(self) -> QuestionAnswering:
        return copied(self, tokenizer=copy.deepcopy(self.tokenizer))

    def read(self, value: Any, parameters: Mapping[str, Any]) -> tuple[str, str]:
        """See :class:`mlserve.handlers.hf_tasks.Task`."""
        if not isinstance(value, Mapping) or set(value) != {"question", "context"}:
            raise Unexpected("No question with a context")
        question, context = text(value["question"]), text(value["context"])
        most = self.length - self.overlap - self.tokenizer.num_special_tokens_to_add(pair=True) - 1
        count = len(self.tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"])
        if count > most:
            raise PredictionError(400, f"The question has {count} tokens; {most} leave room for the context")
        return question, context

    def run(self, items: list[tuple[str, str]], parameters: Mapping[str, Any]) -> list[Any]:
        """See :class:`mlserve.handlers.hf_tasks.Task`."""
        import torch

        encoded = self.tokenizer(
            [question for question, _ in items],
            [context for _, context in items],
            truncation="only_second",
            max_length=self.length,
            stride=self.overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        owners = encoded.pop("overflow_to_sample_mapping").tolist()
        offsets = encoded.pop("offset_mapping").numpy()
        with torch.inference_mode():
            output = self.model(**encoded.to(self.model.device))
        starts, ends = output.start_logits.float().cpu().numpy(), output.end_logits.float().cpu().numpy()
        top, longest = parameters.get("top_k", 1), parameters.get("max_answer_len", 15)
        found: list[list[dict[str, Any]]] = [[] for _ in items]
        filled: set[int] = set()
        for window, owner in enumerate(owners):
            context = [one == 1 for one in encoded.sequence_ids(window)]
            if not any(context):
                continue
            filled.add(owner)
            for score, first, last in best_spans(starts[window], ends[window], context, top, longest):
                begin, end = int(offsets[window][first][0]), int(offsets[window][last][1])
                answer = {"score": score, "start": begin, "end": end, "answer": items[owner][1][begin:end]}
                found[owner].append(answer)
        return [_chosen(_ranked(one)[:top], top, owner in filled) for owner, one in enumerate(found)]


def _chosen(ranked: list[dict[str, Any]], top: int, filled: bool) -> Any:
    """The answer to one item; an error where there are no spans to choose from."""
    if not filled:
        return PredictionError(400, "The tokenizer finds no token in the context, which could hold the answer")
    if not ranked:  # of numbers one span is always the best
        return PredictionError(500, "The model's logits for it are not numbers (NaN): no span can be called the best")
    return ranked[0] if top == 1 else ranked


def best_spans(
    starts: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], context: list[bool], top: int, longest: int
) -> list[tuple[float, int, int]]:
    """The ``top`` spans of tokens as (score, first, last), best first; only tokens of the context, ``longest`` of them.

    ``starts`` and ``ends`` are the logits of one window.
    """
    import numpy as np

    inside = np.array(context)
    first, last = _probabilities(starts, inside), _probabilities(ends, inside)
    scores = np.tril(np.triu(np.outer(first, last)), longest - 1)
    order = np.argsort(-scores, axis=None, kind="stable")[:top]
    pairs = [np.unravel_index(one, scores.shape) for one in order]
    return [(float(scores[pair]), int(pair[0]), int(pair[1])) for pair in pairs if scores[pair] > 0]


def _probabilities(logits: np.ndarray[Any, Any], inside: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    kept = np.where(inside, logits, -np.inf)
    powers = np.exp(kept - kept.max())
    return np.asarray(powers / powers.sum())


def _ranked(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best first; a span that stands in two windows counts once, with its better score."""
    best: dict[tuple[int, int], dict[str, Any]] = {}
    for one in sorted(answers, key=lambda answer: -float(answer["score"])):
        best.setdefault((one["start"], one["end"]), one)
    return list(best.values())
