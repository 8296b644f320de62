"""The release of torch-model-archiver whose command, modules and manifest these are."""

__version__ = "0.12.0"
