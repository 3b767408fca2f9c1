"""`no_context`: the question alone. The easiest case, and one that a service meets daily."""

from curate.insufficient.made import Made, World
from curate.record import Row

METHOD, REASON = "no_context", "no_context"


def make(_: Row, __: World) -> Made:
    """Nothing is left of the context, so that the intensity is 1."""
    return Made(REASON, 1.0, "")
