"""Which build of mlserve this is: the same sources run interpreted or, where setup.py was told so, compiled in part."""

from importlib.util import find_spec


def compiled() -> bool:
    """Whether what every small request goes through is compiled."""
    spec = find_spec("mlserve.core.pending")
    return spec is not None and not str(spec.origin).endswith(".py")
