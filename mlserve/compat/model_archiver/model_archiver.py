"""The class that notebooks call."""

from __future__ import annotations

from mlserve.compat.model_archiver.model_archiver_config import ModelArchiverConfig
from mlserve.compat.model_archiver.model_packaging import generate_model_archive


class ModelArchiver:
    """Packs models."""

    @staticmethod
    def generate_model_archive(config: ModelArchiverConfig) -> None:
        """Pack what ``config`` describes. Raises :class:`ModelArchiverError` or ``FileNotFoundError``."""
        generate_model_archive(config)
