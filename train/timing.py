"""How long training will take: two short models are timed here, and the line through them drawn on.

A model of one block and one of five, with random weights and the real shapes, are trained on a
pack for a moment. Blocks being alike, what five cost beyond one tells what each further one costs;
embedding, logits and all that is done once a pack are in the rest.
"""

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch

from abstain.model import device, model_config, random_model
from train import precision, steps
from train.collate import Pack
from train.memory import free_at_once
from train.methods import wrap
from train.settings import TrainSettings

SHORT, LONGER = 1, 5  # blocks


@dataclass(frozen=True)
class Timing:
    """Seconds of one pack, forward and backward, and of forward alone."""

    train: float
    evaluate: float


def timing(settings: TrainSettings, pack: Pack) -> Timing:
    """Measured on this machine for a whole model of the settings' configuration.

    With ``lean``, this process gives freed memory back at once from then on.
    """
    if settings.lean:
        free_at_once()
    config = model_config(settings.model)
    blocks = int(config.get_text_config().num_hidden_layers)
    short, longer = (_measure(settings, config, count, pack) for count in (SHORT, LONGER))

    def whole(one: float, five: float) -> float:
        each = max(0.0, (five - one) / (LONGER - SHORT))
        return one + (blocks - SHORT) * each

    return Timing(whole(short.train, longer.train), whole(short.evaluate, longer.evaluate))


def _measure(settings: TrainSettings, config: Any, blocks: int, pack: Pack) -> Timing:
    """The fastest of a few rounds, on a model of so many blocks with random weights."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    share = blocks / text.num_hidden_layers
    text.num_hidden_layers = blocks
    if getattr(text, "layer_types", None):
        text.layer_types = (text.layer_types * blocks)[:blocks]
    torch.manual_seed(0)
    base = random_model(config, settings.model).to(device())
    fitting = settings.model_copy(update={"top_layers": max(1, round(settings.top_layers * share))})
    model: Any = wrap(base, fitting, 100).model.train()
    autocast = precision.prepare(model, settings.bfloat16)
    steps.recompute_activations(model, len(pack.tree), settings.keep)
    trained, evaluated = [], []
    for _ in range(6):
        started = time.perf_counter()
        with autocast():
            answer, _, _ = steps.pack_losses(model, None, pack)
        answer.backward()
        _wait()
        trained.append(time.perf_counter() - started)
        started = time.perf_counter()
        with torch.no_grad(), autocast():
            steps.pack_losses(model, None, pack)
        _wait()
        evaluated.append(time.perf_counter() - started)
    return Timing(min(trained[1:]), min(evaluated[1:]))


def _wait() -> None:
    """Until the accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
