"""The ways of fine-tuning, by the names that `--method` takes; imported without torch.

Each is one function ``wrap(model, settings, steps)`` in a module of its own, most of them a few
lines over PEFT. A rate is the literature's for the method, set down with its source.
"""

import typing
from dataclasses import dataclass
from typing import Any, Literal

from curate.errors import UserError

if typing.TYPE_CHECKING:
    from train.methods.wrapped import Wrapped
    from train.settings import TrainSettings

Name = Literal[
    "lora", "rslora", "dora", "adalora", "ia3", "prefix", "prompt", "p-tuning", "layernorm",
    "bitfit", "bottleneck", "adapterfusion", "diffpruning", "sparse", "selective", "low-lr", "full",
]  # fmt: skip


@dataclass(frozen=True)
class Method:
    """What a user chooses by."""

    trains: str  # what is trained
    rate: float  # learning rate for AdamW
    why: str  # where the rate comes from
    dropout: bool = False  # whether MC dropout can draw from it
    averages: bool = False  # whether one can go a part of the way back to the base
    quantised: tuple[int, ...] = ()  # bits that the base beneath may be kept in
    offloads: bool = False  # whether the base's frozen blocks may lie elsewhere until they run
    # Trained in float32 and served so: what is trained stands among the base's own weights, and in
    # a half-precision type small steps would be rounded away.
    float32: bool = False


METHODS: dict[Name, Method] = {
    "lora": Method(
        "low-rank updates beside every linear layer (Hu et al. 2021)",
        4e-4,
        "measured on this project's data (README); about ten times the rate of full fine-tuning, "
        "hardly dependent on the rank (Schulman et al. 2025, LoRA Without Regret)",
        dropout=True,
        averages=True,
        quantised=(4, 8),
        offloads=True,
    ),
    "rslora": Method(
        "LoRA scaled by alpha / √rank, not alpha / rank (Kalajdzievski 2023)",
        2e-4,
        "half of LoRA's: updates count √rank times as much, of which Adam's small rates bear some",
        dropout=True,
        averages=True,
        quantised=(4, 8),
        offloads=True,
    ),
    "dora": Method(
        "LoRA on the direction of each weight, its length trained apart (Liu et al. 2024)",
        2e-4,
        "Liu et al. take LoRA's rate or half of it",
        dropout=True,
        quantised=(4,),  # in 8, PEFT 0.21 loses the scales of the rows it reads
    ),
    "adalora": Method(
        "LoRA whose ranks are moved to the layers that need them (Zhang et al. 2023)",
        1e-3,
        "Zhang et al. 2023: 5e-4 to 2e-3",
        dropout=True,
        averages=True,
        quantised=(4, 8),
    ),
    "ia3": Method(
        "one factor for each key, value and inner feature (Liu et al. 2022)",
        3e-3,
        "Liu et al. 2022: 3e-3",
        quantised=(4, 8),
        offloads=True,
    ),
    "prefix": Method(
        "keys and values of virtual tokens in every layer (Li and Liang 2021)",
        5e-3,
        "Liu et al. 2022 (P-Tuning v2): 5e-3 to 1e-2",
        quantised=(4, 8),
    ),
    "prompt": Method(
        "embeddings of virtual tokens (Lester et al. 2021)",
        3e-2,
        "Lester et al. 2021: 0.3 with Adafactor; a tenth for AdamW",
        quantised=(4, 8),
    ),
    "p-tuning": Method(
        "embeddings of virtual tokens, given by a small network (Liu et al. 2021)",
        1e-3,
        "a network's rate; its outputs move faster than its weights",
        quantised=(4, 8),
    ),
    "layernorm": Method(
        "the gains of the normalisations (Zhao et al. 2023)",
        1e-3,
        "Zhao et al. 2023: larger than full fine-tuning's, since so few are trained",
        averages=True,
        float32=True,
    ),
    "bitfit": Method(
        "a bias for every linear layer, added where there is none (Ben Zaken et al. 2021)",
        1e-3,
        "Ben Zaken et al. 2021: 1e-4 to 1e-2",
        averages=True,
    ),
    "bottleneck": Method(
        "a small network behind each feed-forward layer (Houlsby 2019, Pfeiffer 2021)",
        1e-3,
        "Houlsby et al. 2019: 3e-5 to 3e-3",
        dropout=True,
        averages=True,
        float32=True,
    ),
    "adapterfusion": Method(
        "attention over several trained bottleneck adapters (Pfeiffer et al. 2021); give --fuse",
        5e-4,
        "Pfeiffer et al. 2021: 5e-5 over thousands of steps; a small data set gives hundreds",
        float32=True,
    ),
    "diffpruning": Method(
        "a sparse difference of all linear weights, its places learned (Guo et al. 2021)",
        1e-4,
        "full fine-tuning's, larger because most places are masked",
        averages=True,
        float32=True,
    ),
    "sparse": Method(
        "single weights at random places, as many as LoRA has (SHiRA, Bhardwaj et al. 2024)",
        1e-3,
        "single weights bear the rates of adapters",
        averages=True,
    ),
    "selective": Method(
        "the highest blocks (--top-layers)",
        1e-4,
        "as full fine-tuning, and less",
        averages=True,
        float32=True,
    ),
    "low-lr": Method(
        "the highest blocks (--top-layers), so slowly that little is forgotten",
        3e-5,
        "1e-5 to 5e-5 is what makes it this method",
        averages=True,
        float32=True,
    ),
    "full": Method(
        "every weight but embeddings that the output layer shares",
        5e-5,
        "a tenth of LoRA's (Schulman et al. 2025)",
        averages=True,
        float32=True,
    ),
}


def wrap(model: Any, settings: "TrainSettings", steps: int) -> "Wrapped":
    """The model made ready to be trained by ``settings.method`` for so many steps."""
    from train.methods import adalora, bitfit, bottleneck, diffpruning, ia3, layers, lora, prompts
    from train.methods import sparse as sparse_weights

    functions = {
        "lora": lora.wrap,
        "rslora": lora.wrap,
        "dora": lora.wrap,
        "adalora": adalora.wrap,
        "ia3": ia3.wrap,
        "prefix": prompts.wrap,
        "prompt": prompts.wrap,
        "p-tuning": prompts.wrap,
        "layernorm": layers.wrap,
        "bitfit": bitfit.wrap,
        "bottleneck": bottleneck.wrap,
        "adapterfusion": bottleneck.wrap_fusion,
        "diffpruning": diffpruning.wrap,
        "sparse": sparse_weights.wrap,
        "selective": layers.wrap,
        "low-lr": layers.wrap,
        "full": layers.wrap,
    }
    # peft takes the base model's name from the model itself; it is what a RUN loads again.
    model.name_or_path = settings.model
    if METHODS[settings.method].float32:
        model = model.float()
    try:
        return functions[settings.method](model, settings, steps)
    except (TypeError, ValueError) as error:  # how peft refuses a layer
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"--method {settings.method} cannot take {type(model).__name__}: {first_line}"
        ) from error
