"""The reason head: why a context falls short, read off the prompt's hidden state.

A multinomial logistic regression over the reason codes that validation's insufficient rows carry,
its layer and penalty chosen by cross-validation that keeps groups together, like the probe's. Where
no code is likelier than not, it says `UNKNOWN`.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from abstain.folds import group_folds
from abstain.head import scaled
from abstain.probe import PENALTIES, candidate_layers, features
from abstain.signals import Array
from curate.errors import UserError
from curate.files import replacing

FILE = "reason_head.safetensors"
UNKNOWN = "unknown"
# What nobody has said the reason of teaches none.
_NO_CODE = ("", "unlabelled")
MINIMUM_ROWS = 5  # of a code, for it to be learnt


class ReasonHead(nn.Module):
    """One linear read-out of a layer for each reason code."""

    def __init__(self, layer: int, codes: Sequence[str], hidden_size: int) -> None:
        super().__init__()
        self.layer = layer
        self.codes = tuple(codes)
        self.weight = nn.Parameter(torch.zeros(len(codes), hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(codes)))

    def forward(self, hidden: Tensor) -> Tensor:
        """P(code | the context falls short): [rows, hidden] to [rows, codes]."""
        return (scaled(hidden) @ self.weight.T + self.bias).softmax(-1)

    def reasons(self, hidden: Tensor) -> list[str]:
        """The likeliest code of each row, or `UNKNOWN`."""
        return named(self(hidden).cpu().double().numpy(), self.codes)

    def save(self, folder: Path) -> None:
        """Write the head beside the adapter."""
        metadata = {"layer": str(self.layer), "codes": json.dumps(self.codes)}
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        with replacing(folder / FILE) as temporary:
            temporary.write_bytes(save(tensors, metadata))


def named(p: Array, codes: Sequence[str]) -> list[str]:
    """Codes from their probabilities [rows, codes]: the likeliest where it is likelier than not."""
    return [codes[int(row.argmax())] if row.max() > 0.5 else UNKNOWN for row in p]


@dataclass(frozen=True)
class ReasonFit:
    """A fitted head, and how it did on rows that it was not fitted on."""

    head: ReasonHead
    macro_f1: float
    confusion: dict[str, dict[str, int]]  # true code → said code → rows

    def to_json(self) -> dict[str, Any]:
        """For the calibration's details."""
        return {"layer": self.head.layer, "macro_f1": self.macro_f1, "confusion": self.confusion}


def learnable(reasons: Sequence[str]) -> list[str]:
    """The codes that enough rows have."""
    counts = Counter(reason for reason in reasons if reason not in _NO_CODE)
    return sorted(code for code, count in counts.items() if count >= MINIMUM_ROWS)


def fit(
    hidden: NDArray[np.float32], reasons: Sequence[str], groups: Sequence[str]
) -> ReasonFit | None:
    """Fit on hidden states [rows, layers + 1, hidden] and reason codes; None for one code or none.

    Rows without a code, and codes of fewer than `MINIMUM_ROWS` rows, are left out.
    """
    from sklearn.metrics import f1_score, log_loss

    codes = learnable(reasons)
    kept = np.array([reason in codes for reason in reasons], dtype=bool)
    y = np.array([reason for reason, keep in zip(reasons, kept, strict=True) if keep])
    folds = group_folds([group for group, keep in zip(groups, kept, strict=True) if keep])
    if len(codes) < 2 or not folds:
        return None
    best: tuple[float, int, float, Array] = (math.inf, 0, 0.0, np.zeros(0))
    for layer in candidate_layers(hidden.shape[1] - 1):
        x = features(hidden[kept, layer])
        for c in PENALTIES:
            p: Array = np.zeros((len(y), len(codes)))
            for train, test in folds:
                weight, bias = _multinomial(x[train], y[train], codes, c)
                p[test] = _softmax(x[test] @ weight.T + bias)
            loss = float(log_loss(y, p, labels=codes))
            if loss < best[0]:
                best = loss, layer, c, p
    _, layer, c, p = best
    head = ReasonHead(layer, codes, hidden.shape[2])
    weight, bias = _multinomial(features(hidden[kept, layer]), y, codes, c)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    said = named(p, codes)
    confusion = {
        code: dict(Counter(s for s, t in zip(said, y, strict=True) if t == code)) for code in codes
    }
    macro_f1 = float(f1_score(y, said, labels=codes, average="macro", zero_division=0))
    return ReasonFit(head.eval(), macro_f1, confusion)


def _multinomial(x: Array, y: Any, codes: Sequence[str], c: float) -> tuple[Array, Array]:
    """Weights [codes, features] and biases on raw features; codes that y lacks are ruled out."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((len(codes), x.shape[1])), np.full(len(codes), -30.0)
    present = sorted(set(y))
    if len(present) == 1:
        bias[codes.index(present[0])] = 0.0
        return weight, bias
    mean, scale = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=c, max_iter=500, class_weight="balanced")
    model.fit((x - mean) / scale, y)
    coefficients, intercepts = model.coef_ / scale, model.intercept_
    if len(present) == 2:  # scikit-learn gives one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    rows = [codes.index(code) for code in present]
    weight[rows], bias[rows] = coefficients, intercepts - coefficients @ mean
    return weight, bias


def _softmax(z: Array) -> Array:
    shifted = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def load_reason_head(run: Path) -> ReasonHead | None:
    """The reason head stored in a run's folder, or None where there is none."""
    path = run / FILE
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if {"layer", "codes"} - set(metadata) or {"weight", "bias"} - set(file.keys()):
            raise UserError(f"{path}: damaged; calibrate the run again")
        tensors = {name: file.get_tensor(name) for name in ("weight", "bias")}
    head = ReasonHead(
        int(metadata["layer"]), json.loads(metadata["codes"]), tensors["weight"].shape[1]
    )
    head.load_state_dict(tensors)
    return head.eval()
