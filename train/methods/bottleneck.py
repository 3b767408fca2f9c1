"""Bottleneck adapters, and AdapterFusion of several that have been trained."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from abstain.adapted import Adapted
from abstain.bottleneck import Bottlenecks, Fusion
from abstain.run import CONFIG, KIND, WEIGHTS
from curate.errors import UserError
from curate.files import read_json
from train.methods.wrapped import Wrapped
from train.settings import TrainSettings

IDENTITY = 0.01  # weight of the penalty on values that leave the identity (Pfeiffer et al. 2021)


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """A small network behind each feed-forward layer (Houlsby 2019, Pfeiffer 2021)."""
    model.requires_grad_(False)
    adapter = Bottlenecks(model, settings.bottleneck, settings.dropout)
    return Wrapped(Adapted(model, adapter).to(model.device))


def wrap_fusion(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """Attention over the frozen adapters of the runs in ``settings.fuse``."""
    stored = [_stored(Path(run), settings.model) for run in settings.fuse]
    if len(stored) < 2:
        raise UserError("--method adapterfusion: give --fuse RUN twice or more, each a run of "
                        "--method bottleneck on the same model")  # fmt: skip
    sizes = {config["size"] for config, _ in stored}
    if len(sizes) > 1:
        raise UserError(f"--fuse: the adapters' sizes differ ({sorted(sizes)}); train them alike")
    model.requires_grad_(False)
    # Their dropout was for their own training.
    adapter = Bottlenecks(model, sizes.pop(), 0.0, len(stored), fused=True)
    for number, (_, tensors) in enumerate(stored):
        for layer, block in enumerate(adapter.layers):
            prefix = f"{layer}.adapters.0."
            mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if model.device.type != "meta":  # an estimate has nothing to copy into
                block.adapters[number].load_state_dict(mine)
            block.adapters[number].requires_grad_(False)
    fusions = [layer.fusion for layer in adapter.layers if layer.fusion is not None]
    return Wrapped(
        Adapted(model, adapter).to(model.device), penalty=lambda: IDENTITY * _distance(fusions)
    )


def _distance(fusions: list[Fusion]) -> Any:
    """How far the values are from passing on what the adapters say: sum of squares."""
    off = []
    for fusion in fusions:
        weight = fusion.value.weight
        identity = nn.init.eye_(weight.new_empty(weight.shape))
        off.append((weight - identity).pow(2).sum())
    return sum(off)


def _stored(run: Path, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's configuration and weights, checked."""
    if not (run / CONFIG).exists():
        raise UserError(f"--fuse {run}: not a run (no {CONFIG})")
    config = read_json(run / CONFIG)
    if config.get(KIND) != Bottlenecks.kind or config["fused"]:
        raise UserError(f"--fuse {run}: not trained with --method bottleneck")
    if config["base_model_name_or_path"] != model:
        raise UserError(
            f"--fuse {run}: an adapter of {config['base_model_name_or_path']}, not of {model}"
        )
    return config, load_file(run / WEIGHTS)
