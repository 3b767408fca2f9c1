"""What `abstain calibrate` leaves in ``abstain.json``: two calibrators and a policy."""

from dataclasses import dataclass
from typing import Any

from abstain.calibrator import Calibrator
from abstain.evidence import Evidence
from abstain.router import Policy

RIGHT_F1 = 0.5


@dataclass(frozen=True)
class Calibration:
    """What `abstain calibrate` stores: two calibrators, a policy, and how they came about."""

    sufficient: Calibrator  # P(the context suffices), fitted on all validation rows
    correct: Calibrator  # P(right), fitted on the answered ones
    policy: Policy
    right_f1: float
    evidence: Evidence  # what its signals need
    decline_below: float | None  # of the sufficiency head's logit: declined without an answer
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As stored in ``abstain.json``."""
        return {
            "sufficient": self.sufficient.to_json(),
            "correct": self.correct.to_json(),
            "threshold": self.policy.threshold,
            "guarantee": self.policy.guarantee,
            "right_f1": self.right_f1,
            "evidence": self.evidence.to_json(),
            "decline_below": self.decline_below,
            **self.details,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Calibration":
        """What `to_json` stored; raises KeyError or TypeError where it is not that."""
        known = (
            "sufficient",
            "correct",
            "threshold",
            "guarantee",
            "right_f1",
            "evidence",
            "decline_below",
        )
        return cls(
            Calibrator.from_json(value["sufficient"]),
            Calibrator.from_json(value["correct"]),
            Policy(value["threshold"], value["guarantee"]),
            value["right_f1"],
            Evidence.from_json(value["evidence"]),
            value["decline_below"],
            {key: entry for key, entry in value.items() if key not in known},
        )
