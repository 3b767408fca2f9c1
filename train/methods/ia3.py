"""IA³: one trained factor for each key, value and inner feature of the feed-forward layers."""

from typing import Any

from abstain.blocks import decoder
from curate.errors import UserError
from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings

# The names that architectures give to these layers.
_KEYS_AND_VALUES = ("k_proj", "v_proj", "query_key_value", "qkv_proj", "key", "value")
_INTO_OUTPUT = ("down_proj", "fc2", "dense_4h_to_h", "c_proj_mlp", "wo", "w2")


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """Factors on keys, values and what enters the last feed-forward layer.

    Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
    Learning". No dropout: MC dropout has nothing to draw from.
    """
    from peft import IA3Config

    names = {name.rpartition(".")[2] for name, _ in decoder(model).layers[0].named_modules()}
    inner = [name for name in _INTO_OUTPUT if name in names]
    targets = [name for name in _KEYS_AND_VALUES if name in names]
    if not inner or not targets:
        raise UserError(
            f"ia3 does not know the layers of {type(model).__name__} ({', '.join(sorted(names))}); "
            "use another --method"
        )
    config = IA3Config(
        target_modules=targets + inner, feedforward_modules=inner, task_type="CAUSAL_LM"
    )
    return Wrapped(with_peft(model, config))
