"""One call of transformers' ``generate`` for a whole batch in which every item has parameters of its own.

``generate`` has one set of parameters per call. Here it always decodes greedily, and two hooks do the rest: a logits
processor leaves an item that samples only the token that was drawn for it, and the stopping criterion, called after
every step, hands each item its new text and says which items are done: by an end token, a stop text, their number of
tokens, or because nobody waits any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

_BACK = 5  # tokens
_UNFINISHED = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class Sampling(NamedTuple):
    """Parameters of one item. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 keep all tokens."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Item:
    """A prompt on its way: ``text`` so far, ``reason`` once it has ended (``stop``, ``length`` or ``cancelled``)."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, send: Callable[[str], object] | None = None) -> None:
        self.prompt, self.sampling, self.send = list(prompt), sampling, send
        self.tokens: list[int] = []
        self.text = ""
        self.reason = ""
        # The prompt's last tokens are decoded as well: some tokenizers drop the blank before what stands first.
        self._read = self.prompt[-_BACK:]
        self._decoded = len(self._read)  # tokens whose text is in ``text``, or in the prompt
        self._sent = 0  # characters
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)
        self._warpers = warpers(sampling)

    def choose(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores [1, vocabulary]`` with only the drawn token left, or as they are but for a penalty if greedy."""
        scores = self._warpers(ids, scores)
        if self.sampling.temperature <= 0:
            return scores
        # On the CPU whatever the device is, so that a seed means the same everywhere.
        drawn = torch.multinomial(scores.float().softmax(dim=-1).cpu(), 1, generator=self._random).to(scores.device)
        return torch.full_like(scores, float("-inf")).scatter(1, drawn, 0.0)

    def take(self, token: int, ends: set[int], tokenizer: Any) -> None:
        """Add the token of a step, and send what it completes."""
        if token in ends:
            self.reason = "stop"
        else:
            self.tokens.append(token)
            self._read.append(token)
            if len(self.tokens) >= self.sampling.max_new_tokens:
                self.reason = "length"
        self._grow(tokenizer)
        found = [at for at in map(self.text.find, self.sampling.stop) if at >= 0]
        if found:
            self.text, self.reason = self.text[: min(found)], "stop"
        self._flush()

    def _grow(self, tokenizer: Any) -> None:
        """Decode from a few tokens back: how a token reads may depend on the one before it, its bytes on the next."""
        start, options = max(self._decoded - _BACK, 0), {"clean_up_tokenization_spaces": False}
        known = tokenizer.decode(self._read[start : self._decoded], skip_special_tokens=True, **options)
        now = tokenizer.decode(self._read[start:], skip_special_tokens=True, **options)
        if self.reason or not now.endswith(_UNFINISHED):
            self.text += now[len(known) :]
            self._decoded = len(self._read)

    def _flush(self) -> None:
        """Send what cannot become part of a stop text any more."""
        if self.send is None:
            return
        held = 0 if self.reason else max((len(stop) - 1 for stop in self.sampling.stop), default=0)
        until = len(self.text) - held
        if until > self._sent:
            self.send(self.text[self._sent : until])
            self._sent = until


def warpers(sampling: Sampling) -> LogitsProcessorList:
    """The library's own processors for these parameters."""
    found = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        found.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.temperature > 0:
        found.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            found.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            found.append(TopPLogitsWarper(float(sampling.top_p)))
    return found


def generate(model: Any, tokenizer: Any, items: Sequence[Item], ends: set[int], gone: Callable[[int], bool]) -> None:
    """Complete all items. ``gone(index)`` is asked at every step whether nobody waits for an item any more."""
    longest = max(len(item.prompt) for item in items)
    pads = [longest - len(item.prompt) for item in items]
    padding = tokenizer.pad_token_id
    ids = torch.tensor([[padding] * pad + item.prompt for pad, item in zip(pads, items, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * len(item.prompt) for pad, item in zip(pads, items, strict=True)])

    def choose(sequences: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = [
            scores[row : row + 1]
            if item.reason
            else item.choose(sequences[row : row + 1, pads[row] :], scores[row : row + 1])
            for row, item in enumerate(items)
        ]
        return torch.cat(chosen)

    def ended(sequences: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, (item, token) in enumerate(zip(items, sequences[:, -1].tolist(), strict=True)):
            if not item.reason and gone(row):
                item.reason = "cancelled"
            if not item.reason:
                item.take(token, ends, tokenizer)
        return torch.tensor([bool(item.reason) for item in items], device=sequences.device)

    steps = max(item.sampling.max_new_tokens for item in items)
    with torch.inference_mode():
        model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=GenerationConfig(max_new_tokens=steps, do_sample=False, pad_token_id=padding),
            logits_processor=LogitsProcessorList([choose]),
            stopping_criteria=StoppingCriteriaList([ended]),
        )


def groups(items: Sequence[Item], limit: int | None) -> list[list[int]]:
    """Indices of items that may share a call of :func:`generate`, in as few calls as first fit finds.

    An item that is done goes on in its call until the last one is, so the longest prompt of a call and its most new
    tokens together must fit into the ``limit`` of the model.
    """
    found: list[list[int]] = []
    for index, item in enumerate(items):
        for group in found:
            members = [items[one] for one in group] + [item]
            total = max(len(one.prompt) for one in members) + max(one.sampling.max_new_tokens for one in members)
            if limit is None or total <= limit:
                group.append(index)
                break
        else:
            found.append([index])
    return found


def sampling_of(parameters: Mapping[str, Any]) -> Sampling:
    """From checked parameters. Whatever only sampling uses asks for sampling, at temperature 1 unless given."""
    given = {name: parameters[name] for name in Sampling._fields if name in parameters}
    if isinstance(given.get("stop"), str):
        given["stop"] = (given["stop"],)
    given["stop"] = tuple(given.get("stop") or ())
    asked = parameters.get("do_sample", any(name in given for name in ("temperature", "top_k", "top_p")))
    given["temperature"] = given.get("temperature", 1.0) if asked else 0.0
    return Sampling(**given)
