"""`no_context`: the question alone. The easiest case, and one that a service meets daily."""

from curate.record import Row

REASON = "no_context"


def candidate(row: Row) -> tuple[str, float]:
    """The new context and the intensity: nothing is left, so 1."""
    return "", 1.0
