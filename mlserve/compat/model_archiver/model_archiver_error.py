"""What packing raises."""


class ModelArchiverError(Exception):
    """A name, an output or an input that cannot be packed."""
