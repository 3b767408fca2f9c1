"""What follows from what was measured: prompt, retrieve, fine-tune, or collect more data."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from curate.bootstrap import Interval
from curate.console import interval, table
from train.decide import Measured

# Where more than this share of the contexts that people asked about lacks the answer, it is worth
# more to find better ones than to train.
_MISSING = 0.3
_REACH = 4  # times as many rows as there are: farther, the curve's law is a guess
_FORGOTTEN = 0.05  # growth of bits a byte that users of the model elsewhere will notice
_FEW_DOCUMENTS = 20
_WRONG = 0.05  # share of labels that are wrong to the eye
_LOSS_GAP = 2.0  # validation loss over training loss: learnt by heart
_FEW_SHOT_COST = 1.5  # times an answer's time


@dataclass(frozen=True)
class Option:
    """One thing to do, with what speaks for it and what does not."""

    name: str
    recommended: bool
    reasons: list[str]
    would_change: list[str]  # what would turn this verdict round


@dataclass(frozen=True)
class Verdict:
    """All options, weighed."""

    measured: Measured
    options: list[Option] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "recommended": [one.name for one in self.options if one.recommended],
            **asdict(self),
        }

    def text(self) -> str:
        """For a person."""
        found = self.measured
        lines = [(one.name, interval(one.score), f"{one.milliseconds:.0f}")
                 for one in (*found.untrained, found.trained)]  # fmt: skip
        curve = [(f"{n:,}", interval(score), note) for n, score, note in found.curve.lines()]
        parts = [
            table(("validation rows", found.metric, "ms an answer"), lines),
            table(("training rows", found.metric, ""), curve),
        ]
        for one in self.options:
            head = f"{'→' if one.recommended else ' '} {one.name}"
            body = [f"    {reason}" for reason in one.reasons]
            body += [f"    would change: {what}" for what in one.would_change]
            parts.append("\n".join([head, *body]))
        return "\n\n".join(parts)


def weigh(found: Measured) -> Verdict:
    """The recommendation: a function of the numbers alone.

    Prompting is enough where it reaches the goal for certain, or where training is not certain to
    gain anything; how many validation rows would tell is said then. Fine-tuning is recommended
    where it gains for certain; more data where the goal is not reached and the curve says that it
    can be, or where it still rises. Retrieval does not exclude the others: no training puts an
    answer into a context.
    """
    prompt = _prompt(found)
    options = [prompt, _retrieve(found), _tune(found, prompt.recommended)]
    options.append(_collect(found))
    return Verdict(found, options)


def _at_least(score: Interval, goal: float) -> bool:
    low = score["low"] if score["low"] is not None else score["value"]
    return low is not None and low >= goal


def _gains(found: Measured) -> bool:
    return (found.gain["low"] or 0.0) > 0


def _reached(found: Measured, score: Interval) -> bool:
    return found.goal is not None and _at_least(score, found.goal)


def _prompt(found: Measured) -> Option:
    best = found.untrained[0]
    reasons = [f"{best.name}: {found.metric} {interval(best.score)}{_of_goal(found)}"]
    reasons.append(
        f"{found.off_contract:.0%} of its replies are neither words of the context nor the "
        "abstention phrase: how far the task is from what the model does by itself"
    )
    times = best.milliseconds / min(one.milliseconds for one in found.untrained)
    if "examples" in best.name and times > _FEW_SHOT_COST:
        reasons.append(f"its worked examples make every answer take {times:.1f} times as long")
    enough = _reached(found, best.score) or not _gains(found)
    if enough and not _reached(found, best.score):
        reasons.append(f"training gains {interval(found.gain)} over it: that may be chance")
    change = []
    if not enough:
        change.append("a larger model or a better prompt that reaches what training does: "
                      f"{interval(found.trained.score)}")  # fmt: skip
    elif more := _rows_that_would_tell(found):
        change.append(
            f"about {more:.0f} times as many validation rows, if the gain is what it looks"
        )
    if enough and found.goal is not None and not _at_least(found.trained.score, found.goal):
        change.append("rows that are more like what users ask: neither way reaches the goal")
    return Option("prompt only", enough, reasons, change)


def _rows_that_would_tell(found: Measured) -> float | None:
    """Times as many validation rows until an interval around the same gain would be above 0.

    Its width falls with the root of their number. None where the gain is none, or certain.
    """
    value, low = found.gain["value"], found.gain["low"]
    if value is None or low is None or not low <= 0 < value:
        return None
    return max(2.0, math.ceil(((value - low) / value) ** 2))


def _of_goal(found: Measured) -> str:
    return "" if found.goal is None else f" (goal {found.goal:g})"


def _retrieve(found: Measured) -> Option:
    missing = found.data.context_missing
    reasons = [
        f"without a context the model tells {found.closed_book:.0%} of the answers, with it "
        f"{found.grounded:.0%}: what is in the context is what it can say"
    ]
    if missing is None:
        return Option("retrieval", False, [*reasons, "no validation row was asked by people"], [])
    reasons.append(
        f"{missing:.0%} of the contexts that people asked about do not hold the answer: there, "
        "abstaining is all that training can teach"
    )
    worth = missing > _MISSING and found.grounded > found.closed_book
    turn = f"{'fewer' if worth else 'more'} than {_MISSING:.0%} of real questions without an answer"
    return Option("retrieval", worth, reasons, [f"{turn} in their context"])


def _tune(found: Measured, prompting: bool) -> Option:
    fits = found.memory <= found.machine
    reasons = [
        f"{found.metric} {interval(found.trained.score)}{_of_goal(found)}, "
        f"{interval(found.gain)} over the best prompt, on the same rows",
        f"costs {found.minutes:.0f} minutes and {found.memory:.1f} GiB of this machine's "
        f"{found.machine:.0f}, again whenever rows or model change; what is in the documents may "
        "change freely, since answers come from the context",
        _unlearnt(found),
        _generalisation(found),
    ]
    change = []
    if not fits:
        change.append(f"a machine with {found.memory:.0f} GiB, or another --method (see the plan)")
    reached = found.untrained[0].score["value"] or 0.0
    if not prompting:
        change.append(f"a goal well below {reached:.2f}: prompting reaches that")
    elif not _gains(found):
        change.append(f"a gain that is not chance: now {interval(found.gain)}")
    else:
        change.append(f"a goal above {reached:.2f}: prompting does not reach that")
    return Option("fine-tune", fits and _gains(found) and not prompting, reasons, change)


def _unlearnt(found: Measured) -> str:
    text = (
        f"plain text costs {found.forgotten:+.1%} bits afterwards, and {found.over_refusal:.0%} of "
        "everyday questions get the abstention phrase"
    )
    much = found.forgotten > _FORGOTTEN
    return f"{text}: use --replay, if the model serves others too" if much else text


def _generalisation(found: Measured) -> str:
    data, ratio = found.data, found.validation_loss / max(found.train_loss, 1e-9)
    text = (
        f"loss a token {found.validation_loss:.3f} on validation rows, {found.train_loss:.3f} on "
        f"those learnt; {data.documents} documents"
    )
    if ratio > _LOSS_GAP:
        text += ": much is learnt by heart (fewer --epochs, a lower --rank, more documents)"
    if data.documents < _FEW_DOCUMENTS:
        text += f": fewer than {_FEW_DOCUMENTS} say little of others"
    return text


def _collect(found: Measured) -> Option:
    curve, rows = found.curve, found.data.rows
    rises = (curve.gain["low"] or 0.0) > 0
    reasons = [
        f"{rows:,} training rows, {found.data.unanswerable:.0%} unanswerable, "
        f"{found.data.human:.0%} written by people",
        _quality(found),
        _more(found),
    ]
    prompting = _reached(found, found.untrained[0].score)
    reached = prompting or _reached(found, found.trained.score)
    short = found.goal is not None and not reached
    within = False
    if short and curve.rows_needed is not None:
        needed = curve.rows_needed["value"]
        within = needed is not None and needed <= _REACH * rows
        if needed is not None:
            reasons.append(_needed(found.goal or 0.0, needed, rows))
    wanted = within if short else rises and not _gains(found) and not prompting
    change = []
    if curve.rises is None:
        change.append("a metric that has a value at all sizes")
    elif not wanted and short and not within:
        change.append("a larger model: the curve levels off below the goal")
    elif not wanted:
        change.append("a curve that still rises where the goal is not reached")
    return Option("collect more data", wanted, reasons, change)


def _quality(found: Measured) -> str:
    data = found.data
    text = (
        f"{data.unsupported:.1%} of its answers do not stand in their context, "
        f"{data.contradicted:.1%} of its rows contradict another"
    )
    wrong = max(data.unsupported, data.contradicted) > _WRONG
    return f"{text}: mend those before collecting more" if wrong else text


def _more(found: Measured) -> str:
    curve = found.curve
    if curve.rises is None:
        return f"{found.metric} has no value at one of the curve's sizes: it tells nothing of more"
    if curve.rises:
        return f"twice as many would bring {interval(curve.gain)} by the learning curve"
    return "the learning curve does not rise: more rows are not said to bring anything"


def _needed(goal: float, needed: float, rows: int) -> str:
    if needed > 1e9:
        return f"no number of rows reaches {goal:g}, by the curve"
    if needed <= rows:
        return f"{goal:g} is within the interval of what these rows reach already"
    text = f"about {needed:,.0f} rows would reach {goal:g}"
    far = needed > _REACH * rows
    return f"{text}; more than {_REACH} times what there is, and so a guess" if far else text
