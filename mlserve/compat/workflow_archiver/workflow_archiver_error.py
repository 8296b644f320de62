"""What packing a workflow raises."""


class WorkflowArchiverError(Exception):
    """A name, an output or an input that cannot be packed."""
