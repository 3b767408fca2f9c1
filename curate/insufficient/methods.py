"""All methods by name, and what those that need a model need."""

import logging
from collections.abc import Callable

from curate.insufficient import (
    antonym,
    context_swapped,
    distracted,
    entity_swapped,
    evidence_removed,
    false_premise,
    negated,
    no_context,
    noise_passages,
    number_swapped,
    partial_evidence,
    recombined,
    rematched,
    rewritten,
    truncated,
    underspecified,
    written,
)
from curate.insufficient.made import Maker
from curate.recipe import InsufficientSettings
from curate.record import Row

log = logging.getLogger(__name__)

_MODULES = (
    no_context,
    evidence_removed,
    truncated,
    partial_evidence,
    context_swapped,
    noise_passages,
    distracted,
    entity_swapped,
    number_swapped,
    negated,
    antonym,
    false_premise,
    underspecified,
)
# Methods that ask a language model to write, and the one that asks a reader.
WRITERS: dict[str, Maker] = {
    rewritten.METHOD: rewritten.make,
    recombined.METHOD: recombined.make,
    written.FALSE_PREMISE: written.presume,
    written.UNDERSPECIFIED: written.blur,
}
READERS: dict[str, Maker] = {rematched.METHOD: rematched.make}
MAKERS: dict[str, Maker] = {module.METHOD: module.make for module in _MODULES} | WRITERS | READERS
# What a row must have for a method to be tried on it at all.
# Writers are not shown the turns of a conversation, which may say what is meant.
NEEDS: dict[str, Callable[[Row], bool]] = {
    partial_evidence.METHOD: partial_evidence.applies,
    **dict.fromkeys(WRITERS, lambda row: not row.history),
}


def usable(settings: InsufficientSettings) -> list[str]:
    """The methods asked for, or all; those whose model is missing are left out, and it is said."""
    lacking: dict[str, str] = {}
    if settings.writer is None:
        lacking |= dict.fromkeys(WRITERS, "writer")
    if not settings.verify.readers:
        lacking |= dict.fromkeys(READERS, "reader")
    asked = settings.methods if settings.methods is not None else list(MAKERS)
    for role in sorted(set(lacking.values())):
        skipped = [name for name in asked if lacking.get(name) == role]
        if skipped:
            log.warning("without a %s (a model's address): no %s", role, ", ".join(skipped))
    return [name for name in asked if name not in lacking]
