"""The release of torch-workflow-archiver whose command, modules and manifest these are."""

__version__ = "0.2.15"
