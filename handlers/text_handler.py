"""What text handlers share: the vocabulary of the archive, cleaning and tokenising. See ``text_classifier``."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mlserve.handler import Context, PredictionError

from . import text as texts
from .base import BaseHandler
from .explaining import captum

VOCABULARY = "source_vocab.pt"


class TextHandler(BaseHandler):
    """Loads ``source_vocab.pt`` from the archive; a subclass says what becomes of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None
        self.tokenizer: Callable[[str], list[str]] = texts.basic_english
        self.input_text: str | None = None

    def initialize(self, context: Context) -> None:
        """Load the model and the vocabulary."""
        super().initialize(context)
        self.initialized = False
        self.source_vocab = load_vocabulary(Path(self.get_source_vocab_path(context)))
        self.initialized = True

    def get_source_vocab_path(self, ctx: Context) -> str:
        """Where the vocabulary lies. Raises ``ValueError`` if the archive has none."""
        named = ((self.manifest or {}).get("model") or {}).get("sourceVocab") or VOCABULARY
        path = Path(ctx.system_properties["model_dir"], named)
        if not path.is_file():
            raise ValueError(f"The archive has no {named}: add the vocabulary with --extra-files")
        return str(path)

    @cached_property
    def lig(self) -> Any:
        """Captum's integrated gradients of ``model.embedding``. Raises ``PredictionError`` 501 if there are none."""
        attr = captum(self.model)
        if not hasattr(self.model, "embedding"):
            raise PredictionError(501, "Explanations of texts need a model with a layer called embedding")
        # It hooks into the layer while it works: what another thread predicts meanwhile must not go through that.
        model = copy.deepcopy(self.model) if self._threads() > 1 else self.model
        return attr.LayerIntegratedGradients(model, model.embedding)

    def get_word_token(self, input_tokens: Sequence[str]) -> list[str]:
        """Tokens without the sign that byte-pair tokenizers put for a space."""
        return [token.replace("Ġ", "") for token in input_tokens]

    def summarize_attributions(self, attributions: Any) -> Any:
        """Attributions ``[tokens, dimensions]`` as a softmax, scaled by the norm of their sums."""
        softmax = attributions.softmax(dim=-1)
        return softmax / softmax.sum(dim=-1).norm()

    def _remove_html_tags(self, text: str) -> str:
        return texts.remove_markup(text)

    def _expand_contractions(self, text: str) -> str:
        return texts.expand_contractions(text)

    def _remove_accented_characters(self, text: str) -> str:
        return texts.remove_accents(text)

    def _remove_punctuation(self, text: str) -> str:
        return texts.remove_punctuation(text)

    _remove_puncutation = _remove_punctuation  # subclasses in the wild call it by this spelling

    def _tokenize(self, text: str) -> list[str]:
        return self.tokenizer(text)


def load_vocabulary(path: Path) -> texts.Vocabulary:
    """Read a vocabulary saved by ``torch.save``. Raises ``ValueError`` if it is more than plain data."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        name = re.sub(r"\s+", " ", str(error))[:200]
        raise ValueError(
            f"{path.name} cannot be read as plain data ({name}). Save a dict (token -> index) with torch.save: "
            "of a torchtext Vocab that is vocab.get_stoi()"
        ) from error
    return texts.Vocabulary(content, path.name)
