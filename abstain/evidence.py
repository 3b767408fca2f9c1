"""Which evidence is gathered beside an answer: what a signal needs, and what that costs."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Scope = Literal["full", "suffix", "top-k"]
MaskKind = Literal["shared", "token"]


@dataclass(frozen=True)
class DropoutSettings:
    """MC dropout: how many masks, where they lie, and from which seed they come."""

    samples: int = 20
    scope: Scope = "top-k"
    top_k: int = 4  # blocks, for the scope of that name
    mask: MaskKind = "shared"  # one for all tokens of a sample, or one for each token
    seed: int = 13

    def passes(self, blocks: int) -> float:
        """Cost in forward passes: T, or T · k / blocks."""
        return self.samples * (self.top_k / blocks if self.scope == "top-k" else 1.0)


@dataclass(frozen=True)
class Evidence:
    """What is computed for each answer, besides what generating it gives for nothing."""

    p_true: bool = False
    samples: int = 0  # answers drawn for self-consistency
    temperature: float = 1.0
    seed: int = 13
    dropout: DropoutSettings | None = None
    laplace: int = 0  # blocks of a Laplace approximation; 0: none

    def joined(self, other: "Evidence") -> "Evidence":
        """What either gathers; how, where both do, is as here."""
        return replace(
            self,
            p_true=self.p_true or other.p_true,
            samples=self.samples or other.samples,
            dropout=self.dropout or other.dropout,
            laplace=self.laplace or other.laplace,
        )

    def to_json(self) -> dict[str, Any]:
        """As stored with a calibration."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Evidence":
        """What `to_json` stored."""
        dropout = value["dropout"]
        settings = DropoutSettings(**dropout) if dropout is not None else None
        return cls(**{**value, "dropout": settings})
