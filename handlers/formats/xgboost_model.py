"""XGBoost: boosters saved by ``save_model`` (``.ubj``, ``.json``), also those of its scikit-learn classes.

``predict`` is what ``Booster.predict`` gives: probabilities for ``binary:logistic``, one row of them per item for
``multi:softprob``. Missing values are NaN.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import xgboost

from ..signature import Signature, Tensor
from . import Source
from .tables import INPUT, refuse_unusable, rows_input

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)


class XgboostModel:
    """A booster with its signature."""

    def __init__(self, source: Source) -> None:
        try:
            self._booster = xgboost.Booster(model_file=str(source.path))
        except xgboost.core.XGBoostError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{source.path.name} is not a model that xgboost can read ({reason})") from error
        device = "cpu" if source.gpu is None else f"cuda:{source.gpu}"
        self._threads = source.threads
        self._booster.set_param({"nthread": self._threads, "device": device})
        self.name = f"xgboost {xgboost.__version__}, {device}"
        names = self._booster.feature_names
        self.signature = Signature((rows_input(self._booster.num_features(), "float32", names),), (Tensor("predict"),))
        # What its scikit-learn classes do: trees after the best one of early stopping are in the file, but not used.
        best = self._booster.attr("best_iteration")
        self._iterations = (0, 0 if best is None else int(best) + 1)
        logger.info("%s: %s", source.path.name, self.name)

    def check(self, arrays: Arrays) -> None:
        """See :class:`Runtime`."""
        refuse_unusable(arrays[INPUT], self.signature.inputs[0], missing=True)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        # inplace_predict would fall back to this on a GPU, with a warning each time, and is no faster on eight rows.
        rows = xgboost.DMatrix(inputs[INPUT], nthread=self._threads)
        found = self._booster.predict(rows, iteration_range=self._iterations, validate_features=False)
        return {"predict": np.asarray(found)}


def open_model(source: Source) -> XgboostModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return XgboostModel(source)
