"""What `abstain calibrate` leaves in ``abstain.json``: two calibrators and a threshold."""

from dataclasses import dataclass
from typing import Any

from abstain.calibrator import Calibrator
from abstain.evidence import Evidence
from abstain.router import Threshold

RIGHT_F1 = 0.5


@dataclass(frozen=True)
class Calibration:
    """What `abstain calibrate` stores: two calibrators, a threshold, and how they came about."""

    sufficient: Calibrator  # P(the context suffices), fitted on all validation rows
    correct: Calibrator  # P(right), fitted on the answered ones
    threshold: Threshold
    right_f1: float
    evidence: Evidence  # what its signals need
    decline_below: float | None  # of the sufficiency head's logit: declined without an answer
    details: dict[str, Any]
    # The routing policy that the guarantee covers (`RoutingPolicy.decisive`); "": the threshold
    # alone. With it, P(right) of the second model's answers.
    routing: str = ""
    second: Calibrator | None = None

    def threshold_under(self, routing: str) -> Threshold:
        """The threshold; its guarantee only under the policy that it was certified with."""
        return self.threshold if routing == self.routing else Threshold(self.threshold.value)

    def to_json(self) -> dict[str, Any]:
        """As stored in ``abstain.json``."""
        return {
            "sufficient": self.sufficient.to_json(),
            "correct": self.correct.to_json(),
            "threshold": self.threshold.value,
            "guarantee": self.threshold.guarantee,
            "right_f1": self.right_f1,
            "evidence": self.evidence.to_json(),
            "decline_below": self.decline_below,
            "routing": self.routing,
            "second": self.second.to_json() if self.second is not None else None,
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
            "routing",
            "second",
        )
        second = value.get("second")
        return cls(
            Calibrator.from_json(value["sufficient"]),
            Calibrator.from_json(value["correct"]),
            Threshold(value["threshold"], value["guarantee"]),
            value["right_f1"],
            Evidence.from_json(value["evidence"]),
            value["decline_below"],
            {key: entry for key, entry in value.items() if key not in known},
            value.get("routing", ""),
            Calibrator.from_json(second) if second is not None else None,
        )
