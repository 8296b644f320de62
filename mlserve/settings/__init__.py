"""Settings: one frozen typed tree, filled from flags, environment, a file and defaults, in that order of precedence."""

from mlserve.settings.load import find_config_file, load_settings
from mlserve.settings.option import Option
from mlserve.settings.tree import (
    DefaultsSettings,
    GpuSettings,
    LogSettings,
    MetricsSettings,
    ModelsSettings,
    ServerSettings,
    Settings,
    all_options,
    model_options,
)

__all__ = [
    "DefaultsSettings",
    "GpuSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelsSettings",
    "Option",
    "ServerSettings",
    "Settings",
    "all_options",
    "find_config_file",
    "load_settings",
    "model_options",
]
