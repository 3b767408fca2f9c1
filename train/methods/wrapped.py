"""A model with an adapter to be trained, and what its method does beside the answer's loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from abstain.model import quiet_peft


@dataclass
class Wrapped:
    """What a method gives to the training loop."""

    model: Any
    penalty: Callable[[], Tensor] | None = None  # added to the loss of every step
    # After the optimiser's step, counted from 1, while gradients are still there.
    after_step: Callable[[int], None] | None = None
    # Weights of earlier steps are not yet what the method promises, and are never the best.
    best_from: int = 0
    # What a method remembers beyond its trainable weights, for a checkpoint, and how it is put back
    state: Callable[[], dict[str, Any]] | None = None
    load_state: Callable[[dict[str, Any]], None] | None = None


def with_peft(model: Any, config: Any) -> Any:
    """The model with the adapter that a PEFT configuration describes."""
    from peft import get_peft_model

    with quiet_peft():
        return get_peft_model(model, config)
