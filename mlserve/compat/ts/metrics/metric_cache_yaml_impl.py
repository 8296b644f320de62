"""``ts.metrics.metric_cache_yaml_impl``: a cache of metrics that a file declares, for tests of handlers.

In a worker ``context.metrics`` is there already, with what ``metrics.config`` declares.
"""

from __future__ import annotations

import os
from typing import Any

import yaml

from mlserve.compat.ts.metrics import metric_cache_errors as errors
from mlserve.worker.metric_types import Dimension, MetricTypes
from mlserve.worker.metrics import Metrics


class MetricsCacheYamlImpl(Metrics):
    """Reports go to the worker of this process; where there is none, each is logged as one line."""

    def __init__(self, config_file_path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._added: list[Dimension] = []
        self.config_file_path = config_file_path
        try:
            os.path.exists(config_file_path)
        except TypeError as error:
            raise errors.MetricsCacheTypeError(f"Error loading {config_file_path} file: {error}") from None
        try:
            with open(config_file_path, encoding="utf-8") as file:
                self._parsed_file: Any = yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise errors.MetricsCachePyYamlError(f"Error parsing file {config_file_path}: {error}") from None
        except OSError as error:
            raise errors.MetricsCacheIOError(f"Error reading file {config_file_path}: {error}") from None
        except Exception as error:
            raise errors.GeneralMetricsCacheError(f"General error found in file {config_file_path}: {error}") from error

    def initialize_cache(self) -> None:
        """Declare the file's ``model_metrics``. Raises ``MetricsCacheKeyError`` and ``MetricsCacheValueError``."""
        section = self._parse_metrics_section()
        if not section:
            raise errors.MetricsCacheValueError("Missing `model_metrics` specification")
        for kind, metrics in section.items():
            try:
                metric_type = MetricTypes(kind)
            except ValueError as error:
                raise errors.MetricsCacheKeyError(f"Invalid metric type: {error}") from None
            for metric in metrics:
                try:
                    self.add_metric_to_cache(metric["name"], metric["unit"], metric["dimensions"], metric_type)
                except KeyError as error:
                    raise errors.MetricsCacheKeyError(f"Key not found in cache spec: {error}") from None

    def _parse_metrics_section(self, key: str = "model_metrics") -> dict[str, Any] | None:
        try:
            section: dict[str, Any] | None = self._parsed_file[key]
        except KeyError as error:
            raise errors.MetricsCacheKeyError(f"'{key}' key not found in yaml file: {error}") from None
        return section

    def _with_defaults(self, pairs: list[tuple[str, str]], origin: int, request: str) -> list[tuple[str, str]]:
        shown = super()._with_defaults(pairs, origin, request)
        self._added = [Dimension(*pair) for pair in shown[len(pairs) :]]
        return shown

    def _add(self, name: str, value: Any, unit: str | None, idx: Any, dimensions: Any, *more: Any) -> None:
        """See ``Metrics``. As with TorchServe's class the caller's list has the added dimensions afterwards."""
        super()._add(name, value, unit, idx, dimensions, *more)
        if isinstance(dimensions, list):
            dimensions += self._added

    def _sink(self) -> None:
        """See ``Metrics``: whoever is current."""
