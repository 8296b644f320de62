"""``ts.metrics.unit``."""

from mlserve.worker.metric_types import UNITS


class Units:
    """Short name of a unit -> the name that is shown."""

    def __init__(self) -> None:
        self.units = dict(UNITS)
