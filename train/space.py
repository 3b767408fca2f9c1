"""What a search varies: settings by name, each a range or a list of choices."""

import math
import types
import typing
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from curate.errors import UserError
from train.methods import METHODS
from train.settings import TrainSettings

Space = dict[str, BaseDistribution]

_DECADE = 10.0  # ranges at least so wide are drawn by their logarithm
# What deserves a search: for every method, and for those that have it.
_ALWAYS = ("rows_per_step=6,12,24",)
_RANKED = ("rank=4,8,16,32,64",)
_DROPPING = ("dropout=0,0.05,0.1,0.2",)
_HAVE_RANK = {"lora", "rslora", "dora", "adalora", "sparse"}
# What is no matter of searching, or changes no result.
_FIXED = {
    "model", "base_bits", "forgetting_limit", "abstention_phrase", "fuse", "evaluations",
    "patience", "checkpoint_every", "recompute_above", "lean", "offload", "shard",
}  # fmt: skip


def space_of(given: Sequence[str], settings: TrainSettings) -> Space:
    """What ``--vary`` says; nothing said: what usually matters for the settings' method.

    ``NAME=LOW..HIGH`` is a range, ``NAME=A,B,C`` a list. Raises `UserError` where a setting does
    not exist, does not take such values or is not to be searched.
    """
    found: Space = {}
    for text in given or _usual(settings):
        name, sign, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not values.strip():
            raise UserError(f"--vary {text}: write NAME=LOW..HIGH or NAME=A,B,C")
        if name not in TrainSettings.model_fields or name in _FIXED:
            possible = ", ".join(n for n in TrainSettings.model_fields if n not in _FIXED)
            raise UserError(f"--vary {text}: no setting to search; there are {possible}")
        found[name] = _distribution(name, values.strip(), settings, text)
    return found


def _usual(settings: TrainSettings) -> list[str]:
    rate = settings.rate
    # Low learning rates are that method's point, and bounded.
    low, high = (1e-5, 5e-5) if settings.method == "low-lr" else (rate / 4, rate * 4)
    found = [f"learning_rate={low}..{high}", *_ALWAYS]
    if settings.method in _HAVE_RANK:
        found += _RANKED
    if METHODS[settings.method].dropout:
        found += _DROPPING
    return found


def _distribution(name: str, values: str, base: TrainSettings, text: str) -> BaseDistribution:
    kind = _kind(name)
    if ".." not in values:
        return CategoricalDistribution([_valid(name, v, base, text) for v in values.split(",")])
    ends = values.split("..")
    if kind not in (int, float) or len(ends) != 2:
        raise UserError(f"--vary {text}: {name} takes no range; list the choices: NAME=A,B,C")
    low, high = (_valid(name, end, base, text) for end in ends)
    if not low < high:
        raise UserError(f"--vary {text}: a range rises")
    log = low > 0 and high / low >= _DECADE
    if kind is int:
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _kind(name: str) -> Any:
    """The type of a setting, without the None that it may be."""
    annotation = TrainSettings.model_fields[name].annotation
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    return annotation


def _valid(name: str, value: str, base: TrainSettings, text: str) -> Any:
    """The value as the settings understand it."""
    from pydantic import ValidationError

    typed: Any = value.strip()
    try:
        if _kind(name) in (int, float):
            typed = float(typed)
            typed = int(typed) if _kind(name) is int and typed.is_integer() else typed
        model = TrainSettings.model_validate(base.model_dump() | {name: typed})
    except ValidationError as error:
        own = [one["msg"] for one in error.errors() if name in one["loc"]]
        if own:
            raise UserError(f"--vary {text}: {value}: {own[0]}") from error
        return typed  # goes with some values of other settings; a trial will tell
    except ValueError as error:
        raise UserError(f"--vary {text}: {value} is no number") from error
    return getattr(model, name)


def holds(space: Space, settings: TrainSettings) -> bool:
    """Whether these settings are a point of the space."""
    for name, distribution in space.items():
        value = value_of(settings, name)
        if isinstance(distribution, CategoricalDistribution):
            if value not in distribution.choices:
                return False
        elif not distribution.low <= value <= distribution.high:  # type: ignore[attr-defined]
            return False
    return True


def points(space: Space) -> int:
    """How many points a grid has; lists only."""
    return math.prod(len(d.choices) for d in space.values() if hasattr(d, "choices"))


def value_of(settings: TrainSettings, name: str) -> Any:
    """What a setting is; a method's own learning rate where none was given."""
    return settings.rate if name == "learning_rate" else getattr(settings, name)


def sampler(kind: str, space: Space, seed: int) -> optuna.samplers.BaseSampler:
    """How the next trial is chosen: by what went well (TPE), at random, or all of a grid."""
    if kind == "grid":
        ranges = [n for n, d in space.items() if not isinstance(d, CategoricalDistribution)]
        if ranges:
            raise UserError(
                f"--sampler grid: {ranges[0]} is a range; list its values: --vary {ranges[0]}=A,B,C"
            )
        # Unlike Optuna's GridSampler it takes trials that are tried again after a kill.
        return optuna.samplers.BruteForceSampler(seed=seed)
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=6, multivariate=True)
