"""LightGBM: boosters saved by ``save_model`` (``.txt``, ``.lgb``).

``predict`` is what ``Booster.predict`` gives: probabilities for classifiers. Missing values are NaN.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import lightgbm
import numpy as np

from ..signature import Signature, Tensor
from . import Source
from .tables import INPUT, rows_input

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)


class LightgbmModel:
    """A booster with its signature."""

    def __init__(self, source: Source) -> None:
        try:
            self._booster = lightgbm.Booster(model_file=str(source.path))
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"{source.path.name} is not a model that lightgbm can read ({error})") from error
        self._threads = source.threads
        self.name = f"lightgbm {lightgbm.__version__}, cpu"
        names = self._booster.feature_name()
        if all(re.fullmatch(r"Column_\d+", name) for name in names):
            names = None  # made up by lightgbm for data without names
        self.signature = Signature((rows_input(self._booster.num_feature(), "float64", names),), (Tensor("predict"),))
        logger.info("%s: %s", source.path.name, self.name)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        return {"predict": np.asarray(self._booster.predict(inputs[INPUT], num_threads=self._threads))}


def open_model(source: Source) -> LightgbmModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return LightgbmModel(source)
