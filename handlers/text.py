"""Text in, tokens out: cleaning and tokenising for the text handlers, with torch and the standard library only.

The rules are those that classic torchtext models were trained with ("basic_english" and word n-grams), so that a
vocabulary made with them finds its words again.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MARKUP = re.compile(r"<.*?>|&(?:[a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")
_NEGATED = {"can't": "cannot", "won't": "will not", "shan't": "shall not", "ain't": "is not"}
_ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'d": " would", "'m": " am"}
_IS = frozenset(["it", "that", "what", "who", "where", "when", "why", "how", "there", "here", "he", "she", "let"])
_CONTRACTION = re.compile(r"\b([a-z]+)(n't|'(?:re|ve|ll|d|m|s))\b", re.IGNORECASE)

# basic_english: what is put in place of each of these, in this order
_BASIC_ENGLISH = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"'", " '  "), (r'"', ""), (r"\.", " . "), (r"<br />", " "), (r",", " , "), (r"\(", " ( "),
        (r"\)", " ) "), (r"!", " ! "), (r"\?", " ? "), (r";", " "), (r":", " "), (r"\s+", " "),
    )
]  # fmt: skip


def remove_markup(text: str) -> str:
    """Without HTML tags and entities."""
    return _MARKUP.sub("", text)


def expand_contractions(text: str) -> str:
    """ "I'd" to "I would", "don't" to "do not"; apostrophes that are left (possessives) go."""
    return _CONTRACTION.sub(_expanded, text).replace("'", "")


def _expanded(match: re.Match[str]) -> str:
    whole, word, ending = match.group(0), match.group(1), match.group(2).lower()
    if whole.lower() in _NEGATED:
        return whole[0] + _NEGATED[whole.lower()][1:]
    if ending == "'s":
        if word.lower() not in _IS:
            return whole
        return word + (" us" if word.lower() == "let" else " is")
    return word + _ENDINGS[ending]


def remove_accents(text: str) -> str:
    """ASCII only, letters without their accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def remove_punctuation(text: str) -> str:
    """Without ASCII punctuation."""
    return text.translate(str.maketrans("", "", string.punctuation))


def basic_english(text: str) -> list[str]:
    """Lower-case tokens; punctuation is a token of its own."""
    text = text.lower()
    for pattern, replacement in _BASIC_ENGLISH:
        text = pattern.sub(replacement, text)
    return text.split()


def ngrams(tokens: Sequence[str], size: int) -> Iterator[str]:
    """The tokens, then each two neighbours joined by a space, and so on up to ``size``."""
    yield from tokens
    for length in range(2, size + 1):
        for start in range(len(tokens) - length + 1):
            yield " ".join(tokens[start : start + length])


class Vocabulary:
    """Token -> index, from a mapping or a list of tokens. What it does not know is ``<unk>``, index 0 without one."""

    def __init__(self, content: Any, source: str = "source_vocab.pt") -> None:
        if isinstance(content, Mapping):
            self._indices = {str(token): int(index) for token, index in content.items()}
        elif isinstance(content, (list, tuple)):
            self._indices = {str(token): index for index, token in enumerate(content)}
        else:
            raise ValueError(
                f"{source} holds a {type(content).__name__}; save a dict (token -> index) or a list of tokens "
                "with torch.save: of a torchtext Vocab that is vocab.get_stoi()"
            )
        self._unknown = self._indices.get("<unk>", 0)

    def __len__(self) -> int:
        return len(self._indices)

    def __contains__(self, token: str) -> bool:
        return token in self._indices

    def __getitem__(self, token: str) -> int:
        return self._indices.get(token, self._unknown)
