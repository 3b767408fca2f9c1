"""The methods that need no model, by name."""

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
    truncated,
    underspecified,
)
from curate.insufficient.made import Maker

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
MAKERS: dict[str, Maker] = {module.METHOD: module.make for module in _MODULES}
