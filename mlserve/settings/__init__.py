"""Settings: one frozen typed tree, filled from flags, environment, a file and defaults, in that order of precedence."""

from mlserve.settings.access import AuthSettings, CorsSettings, TlsSettings
from mlserve.settings.load import find_config_file, load_settings
from mlserve.settings.models import DefaultsSettings, ModelsSettings
from mlserve.settings.option import Option
from mlserve.settings.processes import WorkersSettings
from mlserve.settings.profiles import PROFILES
from mlserve.settings.tree import (
    GpuSettings,
    GrpcSettings,
    LogSettings,
    MetricsSettings,
    ServerSettings,
    Settings,
    all_options,
    model_options,
)

__all__ = [
    "PROFILES",
    "AuthSettings",
    "CorsSettings",
    "DefaultsSettings",
    "GpuSettings",
    "GrpcSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelsSettings",
    "Option",
    "ServerSettings",
    "Settings",
    "TlsSettings",
    "WorkersSettings",
    "all_options",
    "find_config_file",
    "load_settings",
    "model_options",
]
