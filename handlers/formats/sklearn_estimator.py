"""scikit-learn estimators: ``.skops`` files, and pickles (``.joblib``, ``.pkl``), which run any code that is in them.

Outputs are called like the methods: ``predict``, and ``predict_proba`` where the estimator has it; ``sklearn:
{methods: [...]}`` in model-config.yaml chooses others. A pipeline that encodes text has one input per feature.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn

from mlserve.handler import PredictionError

from ..signature import Signature, Tensor
from . import Source
from .columns import Encoded, allows_missing, encoded_columns, selects_columns, steps_of
from .tables import INPUT, refuse_unusable, rows_input

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)


class Estimator:
    """An estimator with its signature."""

    def __init__(self, source: Source) -> None:
        self._estimator: Any = load(source)
        limit_threads(self._estimator, source.threads)
        self.name = f"scikit-learn {sklearn.__version__}, {type(self._estimator).__name__}"
        self._methods = methods(self._estimator, source)
        self._names = [str(one) for one in getattr(self._estimator, "feature_names_in_", ())]
        count = getattr(self._estimator, "n_features_in_", 0)
        self._columns = self._names or [f"x{at}" for at in range(count)]  # scikit-learn's own names for those without
        self._encoded = encoded_columns(self._estimator, self._columns)
        self._mixed = any(one.text for one in self._encoded.values())
        self._frame = bool(self._names) and (self._mixed or selects_columns(self._estimator))
        if self._frame:
            import pandas  # noqa: F401 - a missing one is an error of loading, not of the first request
        self._missing = allows_missing(self._estimator)
        outputs = tuple(tensor for one in self._methods for tensor in outputs_of(self._estimator, one))
        self.signature = Signature(self._inputs(), outputs)
        # Arrays have no names: the order is held by the handler, so this would be said of every batch in vain.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        logger.info("%s: %s", source.path.name, self.name)

    def _inputs(self) -> tuple[Tensor, ...]:
        if self._mixed:
            return tuple(Tensor(one, self._dtype(one), (None,)) for one in self._columns)
        if hasattr(steps_of(self._estimator)[0], "build_analyzer"):  # a vectorizer: texts, and not rows
            return (Tensor(INPUT, "str", (None,)),)
        count = getattr(self._estimator, "n_features_in_", None)
        return (Tensor(INPUT) if count is None else rows_input(int(count), "float64", self._names),)

    def _dtype(self, name: str) -> str:
        return "str" if name in self._encoded and self._encoded[name].text else "float64"

    def check(self, arrays: Arrays) -> None:
        """See :class:`Runtime`."""
        for tensor in self.signature.inputs:
            if tensor.dtype != "str":
                refuse_unusable(arrays[tensor.name], tensor, missing=self._missing)
        for name, encoded in self._encoded.items():
            at = self._columns.index(name)
            if self._mixed:
                refuse_unknown(arrays[name], name, encoded)
            else:
                (tensor,) = self.signature.inputs
                shown = tensor.features[at] if tensor.features else f"number {at}"
                refuse_unknown(arrays[tensor.name][:, at], shown, encoded)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        given: Any = next(iter(inputs.values()))
        if self._frame:
            import pandas

            given = pandas.DataFrame(inputs if self._mixed else given, columns=self._names)
            given = given.astype({name: object for name, one in self._encoded.items() if one.objects})
        elif self._mixed:
            given = np.column_stack([inputs[one].astype(object) for one in self._columns])
        elif any(one.objects for one in self._encoded.values()):
            given = given.astype(object)
        found: Arrays = {}
        for name in self._methods:
            found |= named(name, getattr(self._estimator, name)(given))
        return found


def open_model(source: Source) -> Estimator:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return Estimator(source)


def load(source: Source) -> Any:
    """The estimator of a file. Raises ``ValueError`` for one that holds none, or types that nobody said to trust."""
    if source.path.suffix != ".skops":
        return _unpickled(source)
    import skops.io

    trusted = source.options.get("trusted") or []
    if not isinstance(trusted, list):
        raise ValueError(f"sklearn: trusted in model-config.yaml must be a list of types, got {trusted!r}")
    try:
        unknown = [one for one in skops.io.get_untrusted_types(file=source.path) if one not in trusted]
    except Exception as error:  # whatever zipfile and json say of a broken file
        raise ValueError(f"{source.path.name} is not a .skops file ({error})") from error
    if unknown:
        raise ValueError(
            f"{source.path.name} holds types that skops does not trust: {', '.join(unknown)}. If you do, write "
            f"sklearn: {{trusted: [{', '.join(unknown)}]}} into model-config.yaml"
        )
    return skops.io.load(source.path, trusted=trusted)


def _unpickled(source: Source) -> Any:
    import joblib

    logger.warning(
        "%s is a pickle: loading it runs whatever code it holds. Serve none but files of your own. skops.io.dump "
        "writes one that cannot run code, skl2onnx an ONNX model that needs no scikit-learn",
        source.path.name,
    )
    try:
        found = joblib.load(source.path)
    except ImportError:
        raise  # a package that the model was made with: named with its install line
    except Exception as error:  # a pickle may raise anything
        raise ValueError(f"{source.path.name} cannot be unpickled ({type(error).__name__}: {error})") from error
    if not callable(getattr(found, "predict", None)) and not callable(getattr(found, "transform", None)):
        raise ValueError(f"{source.path.name} holds a {type(found).__name__}, which is no estimator: no predict method")
    return found


def limit_threads(estimator: Any, threads: int) -> None:
    """Keep ``n_jobs`` of training, often -1 for every CPU, to the worker's share: other workers use the same CPUs."""
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    wanted = {
        name: threads
        for name, value in parameters.items()
        if name.rpartition("__")[2] == "n_jobs" and isinstance(value, int) and not 0 < value <= threads
    }
    if wanted:
        estimator.set_params(**wanted)


def methods(estimator: Any, source: Source) -> list[str]:
    """What to call. Raises ``ValueError`` for a method of the options that the estimator lacks."""
    named = source.options.get("methods")
    if named is None:
        return [one for one in ("predict", "predict_proba") if hasattr(estimator, one)] or ["transform"]
    missing = [one for one in named if not callable(getattr(estimator, str(one), None))]
    if missing:
        raise ValueError(
            f"sklearn: methods in model-config.yaml: {type(estimator).__name__} has no {', '.join(missing)}"
        )
    return list(named)


def outputs_of(estimator: Any, method: str) -> list[Tensor]:
    """The outputs of a method, as far as the estimator's classes say; of several targets each has its probabilities."""
    classes, of_classes = getattr(estimator, "classes_", None), method in ("predict_proba", "predict_log_proba")
    dtype = "float64" if type(estimator).__module__.startswith("sklearn.") else ""  # other libraries have float32, too
    if of_classes and isinstance(classes, list):
        return [_of_classes(f"{method}_{target}", dtype, one) for target, one in enumerate(classes)]
    if not isinstance(classes, np.ndarray) or not (of_classes or method == "predict"):
        return [Tensor(method)]
    if of_classes:
        return [_of_classes(method, dtype, classes)]
    return [Tensor(method, "str" if classes.dtype.kind in "OU" else classes.dtype.name, (None,))]


def _of_classes(name: str, dtype: str, classes: Any) -> Tensor:
    return Tensor(name, dtype, (None, len(classes)), features=tuple(map(str, classes)))


def named(method: str, found: Any) -> Arrays:
    """A method's result as arrays, rows first; several targets give a list of arrays, transformers sparse ones."""
    if isinstance(found, list):
        return {f"{method}_{target}": np.asarray(one) for target, one in enumerate(found)}
    return {method: np.asarray(found.toarray() if hasattr(found, "toarray") else found)}


def refuse_unknown(values: np.ndarray[Any, Any], name: str, encoded: Encoded) -> None:
    """Raise :class:`PredictionError` for a category that the encoder would fail on."""
    for value in values.tolist():
        if not encoded.knows(value):
            known = ", ".join(map(str, encoded.categories[:20]))
            raise PredictionError(400, f"Feature {name} is {value!r}, which the model does not know; known are {known}")
