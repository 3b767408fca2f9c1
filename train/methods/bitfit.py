"""BitFit: a trained bias for every linear layer, also in models that have none."""

from typing import Any

from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """A bias beside each linear layer but the output's, zero at first.

    Ben Zaken et al. 2021, "BitFit". They train the biases that a model has; today's models have
    none in their linear layers, so they are added. No dropout: MC dropout has nothing to draw from.
    """
    from peft import BeftConfig

    config = BeftConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    return Wrapped(with_peft(model, config))
