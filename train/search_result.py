"""What a search has come to, for a person and for a program."""

from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from curate.bootstrap import Interval
from curate.console import interval, table

# Of these less is better.
LOWER = {"aurc", "e_aurc", "augrc", "ece", "brier", "selective_risk", "loss"}
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped early"}


@dataclass(frozen=True)
class Tried:
    """One trial."""

    number: int
    state: str
    settings: dict[str, Any]
    value: float | None
    seconds: float | None
    note: str  # why it failed or was stopped


@dataclass(frozen=True)
class Found:
    """The study's trials, and whether the best of them beats the defaults on other rows."""

    metric: str
    defaults: float | None  # of the settings as they were, on the validation split
    best: Tried | None  # None: no trial has come to its end
    beaten: bool  # whether it does better than the defaults there
    tried: list[Tried]
    importances: dict[str, float]  # share of what the metric varied by; they sum to 1
    gains: dict[str, Interval]  # best minus defaults on the test split; empty without one

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)

    def text(self) -> str:
        """For a person."""
        lines = [
            (
                one.number,
                one.state,
                "–" if one.value is None else f"{one.value:.4f}",
                "" if one.seconds is None else f"{one.seconds:.0f}",
                ", ".join(f"{name} {_short(value)}" for name, value in one.settings.items()),
                one.note,
            )
            for one in self.tried
        ]
        header = ("trial", "", self.metric, "s", "settings", "")
        said = "undefined" if self.defaults is None else f"{self.defaults:.4f}"
        parts = [table(header, lines), f"defaults: {self.metric} {said} (validation)"]
        values = [one.value for one in self.tried if one.value is not None]
        if len(values) > 1 and len(set(values)) == 1:
            parts.append(f"all trials have the same {self.metric}: it does not tell them apart")
        if self.importances:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.importances.items())
            parts.append(f"what it varied with: {shares}")
        parts.append(self._verdict())
        return "\n".join(parts)

    def _verdict(self) -> str:
        if self.best is None:
            return "no trial came to its end: nothing is recommended"
        if not self.beaten:
            return "no trial does better than the defaults: nothing to change"
        if not self.gains:
            return (
                f"trial {self.best.number} does best on the validation rows that chose it; without "
                "a test split nobody knows whether elsewhere too; its settings are in best.yaml"
            )
        # What may be searched for and is not there is a loss, which the test split has none of.
        name = self.metric if self.metric in self.gains else "f1"
        gain = self.gains[name]
        low, high = gain["low"], gain["high"]
        text = f"trial {self.best.number} against the defaults on the test split: {name} "
        text += interval(gain)
        if low is None or high is None or low <= 0 <= high:
            return f"{text}: that may be chance; the defaults are as good a choice"
        if (high < 0) != (name in LOWER):
            return f"{text}: worse than the defaults, and not by chance; keep those"
        return f"{text}: not chance, at 95 %; its settings are in best.yaml"


def tried(trial: FrozenTrial) -> Tried:
    """What the study keeps of a trial."""
    seconds = trial.duration.total_seconds() if trial.duration is not None else None
    state = _STATES.get(trial.state, "failed")
    value = trial.value if trial.state == TrialState.COMPLETE else None
    note = trial.user_attrs.get("note", "")
    return Tried(trial.number, state, trial.user_attrs["settings"], value, seconds, note)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
