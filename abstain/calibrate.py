"""`abstain calibrate`: validation fits and selects everything, calibration certifies once."""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from abstain import probe, retrieve
from abstain.answer import Answering
from abstain.calibration import RIGHT_F1, Calibration
from abstain.cascade import named
from abstain.end_to_end import Measured, ThresholdAlone, policy_as_a_whole
from abstain.evidence import Evidence
from abstain.fitting import Fitted, fit
from abstain.groups import context_groups
from abstain.ledger import Entry
from abstain.policy import RoutingPolicy
from abstain.router import PLAIN, Threshold
from abstain.run import CALIBRATION_FILES, RunFile, policy_hash, read_run_file, weights_hash
from abstain.signals import chosen
from abstain.threshold import (
    AnyUnits,
    Goal,
    Guarantee,
    Infeasible,
    Units,
    candidates,
    certify,
    upper_bound,
)
from abstain.unguaranteed import Aim, by_cost, by_coverage, by_f1
from curate.dedup import context_id
from curate.errors import UserError
from curate.files import writable_folder
from curate.record import Row, read_fold

MINIMUM_ROWS = 20


@dataclass(frozen=True)
class Request:
    """What is asked of a calibration."""

    goal: Goal = field(default_factory=Goal)
    certify: bool = True
    pooled: bool = False  # every question a unit: assumes that they are independent
    aim: Aim = "cost"  # of the threshold where there is no guarantee
    cost_wrong: float = 1.0
    cost_abstain: float = 0.5
    coverage: float = 0.5
    right_f1: float = RIGHT_F1
    policy: RoutingPolicy = field(default=PLAIN, repr=False)  # certified as a whole
    signals: tuple[str, ...] = field(default_factory=lambda: chosen("free"))
    evidence: Evidence = field(default_factory=Evidence)
    seed: int = 13


def calibrate(
    run: Path, data: Path, answerer: Answering, request: Request, again: bool
) -> Calibration:
    """Fit on validation, certify once on calibration, and store the result in the run.

    A second certification on the same rows is refused unless ``again``: the best of several
    tries does not hold the promise of one. The same request on the same rows is no second try.
    """
    writable_folder(run)
    validation, calibration = read_fold(data, "validation"), read_fold(data, "calibration")
    train = read_fold(data, "train")
    _refuse_shared_groups(
        data, {"train": train, "validation": validation, "calibration": calibration}
    )
    if len(validation) < MINIMUM_ROWS:
        raise UserError(
            f"{data}: {len(validation)} validation rows, and at least {MINIMUM_ROWS} are needed "
            "to fit a calibrator; give folds.validation a larger share in the recipe"
        )
    if not request.policy.is_plain and request.aim == "f1":
        raise UserError("--aim f1 is for the threshold alone; with a policy use cost or coverage")
    ledger = read_run_file(run).ledger
    routing = named(request.policy, retrieve.make(request.policy.retriever))
    decisive = (repr(request), routing, *(row.id + row.content_hash for row in validation))
    target = f"target risk {request.goal.risk:g}, δ {request.goal.delta:g}"
    entry = Entry.of(target, calibration, weights_hash(run), *filter(None, decisive))
    if request.certify:
        ledger = ledger.with_entry(run, entry, again)
    names, right_f1 = request.signals, request.right_f1
    fitted = fit(answerer, validation, train, names, request.evidence, right_f1)
    answerer.gather(fitted.evidence)
    measured: Measured = ThresholdAlone(answerer, fitted)
    if not request.policy.is_plain:
        splits = {"train": train, "validation": validation, "calibration": calibration}
        measured = policy_as_a_whole(answerer, fitted, request.policy, validation, splits)

    natural = _is_representative(validation)
    everything = measured.validation(np.ones(len(validation), dtype=bool))
    threshold = _without_guarantee(everything, fitted, request)
    accepted, errors = everything.count(threshold)
    details: dict[str, Any] = {
        "target_risk": request.goal.risk,
        "delta": request.goal.delta,
        "infeasible": None,
        "without_guarantee": {
            "aim": request.aim,
            "threshold": threshold,
            "cost": {"wrong": request.cost_wrong, "abstain": request.cost_abstain},
            "coverage": request.coverage,
            "reached": {"coverage": accepted / len(validation), "wrong": errors, "of": accepted},
        },
        "mixture": {"rows": "natural" if natural else "natural and derived"},
        "derived": None,
        "certifications": ledger.tries(entry),
        "validation_rows": len(validation),
        # What service compares its questions with: quantiles of P(right), at even distances.
        "reference": np.quantile(fitted.confidence, np.linspace(0, 1, 11)).tolist(),
        **fitted.details(),
    }
    outcome: Guarantee | Infeasible | None = None
    if request.certify:
        rows = _units_of(calibration, natural, request)
        details["mixture"] |= {
            "sufficient": sum(bool(row.sufficient) for row in rows),
            "insufficient": sum(not row.sufficient for row in rows),
        }
        representative = np.array([not natural or row.method == "human" for row in validation])
        thresholds = candidates(measured.validation(representative), len(rows), request.goal)
        outcome = certify(thresholds, measured.answered(rows), request.goal)
        if isinstance(outcome, Guarantee):
            threshold = outcome.threshold
        else:
            unit = "questions" if request.pooled else "contexts"
            details["infeasible"] = {**outcome.to_json(), "text": outcome.text(unit)}
        if natural:
            details["derived"] = _derived(measured, calibration, request, threshold)
    result = Calibration(
        fitted.sufficient.calibrator,
        fitted.correct.calibrator,
        Threshold(threshold),
        request.right_f1,
        fitted.evidence,
        fitted.decline_below,
        details,
        measured.routing,
        measured.second,
    )
    # Until the new abstain.json is there, the run is one that was never calibrated: a probe of now
    # under a calibrator of before would be wrong without a word.
    RunFile(answerer.contract, None, ledger).write(run)
    _save_heads(run, fitted)
    if isinstance(outcome, Guarantee):
        result = _promised(result, outcome, request, run, answerer)
    RunFile(answerer.contract, result, ledger).write(run)
    return result


def _units_of(calibration: list[Row], natural: bool, request: Request) -> list[Row]:
    """The rows that certify: natural ones where they hold both labels, one a context or all."""
    rows = [row for row in calibration if not natural or row.method == "human"]
    return rows if request.pooled else one_row_a_context(rows, request.seed, calibration)


def _promised(
    result: Calibration, outcome: Guarantee, request: Request, run: Path, answerer: Answering
) -> Calibration:
    """The calibration with its guarantee, and everything that this covers by name."""
    guarantee = {
        **outcome.to_json(),
        "loss": f"answered, and not (sufficient and {_right(request.right_f1)})"
        + ("" if request.policy.is_plain else _RETRIEVED),
        "routing": request.policy.name,
        "unit": (
            "every question, assumes independence"
            if request.pooled
            else "one seeded question a context"
        ),
        "mixture": result.details["mixture"],
        "certifications": result.details["certifications"],
        # The promise covers this one frozen policy: other weights are another policy.
        "policy_hash": policy_hash(run, answerer.contract, result),
    }
    return replace(result, threshold=Threshold(outcome.threshold, guarantee))


_RETRIEVED = "; with retrieved passages, not one of the answers known"


def _right(right_f1: float) -> str:
    return f"F1 at least {right_f1}" if right_f1 < 1 else "an exact match"


def _save_heads(run: Path, fitted: Fitted) -> None:
    """Write what was fitted; what an earlier calibration has left goes."""
    for name in CALIBRATION_FILES:
        (run / name).unlink(missing_ok=True)
    if fitted.probe is not None:
        fitted.probe.probe.save(run, probe.FILE)
    if fitted.reason is not None:
        fitted.reason.head.save(run)
    if fitted.laplace is not None:
        fitted.laplace.save(run)


def _without_guarantee(units: AnyUnits, fitted: Fitted, request: Request) -> float:
    if request.aim == "coverage":
        return by_coverage(units, request.coverage)
    if request.aim == "f1" and isinstance(units, Units):
        return by_f1(units, fitted.judged.f1, fitted.judged.sufficient)
    return by_cost(units, request.cost_wrong, request.cost_abstain)


def _derived(
    measured: Measured, calibration: list[Row], request: Request, threshold: float
) -> dict[str, Any] | None:
    """How the threshold does on derived rows, which the promise for natural ones leaves out."""
    rows = [row for row in calibration if row.method != "human"]
    if not rows:
        return None
    units = measured.answered(one_row_a_context(rows, request.seed, calibration))
    accepted, errors = units.count(threshold)
    return {
        "rows": len(units),
        "accepted": accepted,
        "errors": errors,
        "risk_bound": upper_bound(accepted, errors, request.goal.delta),
    }


def one_row_a_context(
    rows: Sequence[Row], seed: int, split: Sequence[Row] | None = None
) -> list[Row]:
    """One row of each context, drawn by seed: questions that share a context are not independent.

    Rows without a context share none, and each stands for itself. ``split`` are all rows among
    which a derived one finds its parent, and with it the context that it goes back to.
    """
    whole = rows if split is None else split
    group_of = dict(zip((row.id for row in whole), context_groups(whole), strict=True))
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[group_of[row.id]].append(row)
    return [
        random.Random(f"{seed}/{name}").choice(sorted(members, key=lambda row: row.id))
        for name, members in sorted(groups.items())
    ]


def _is_representative(rows: Sequence[Row]) -> bool:
    """Whether natural rows alone hold both labels; else derived ones have to stand in."""
    return len({row.sufficient for row in rows if row.method == "human"}) == 2


def _refuse_shared_groups(data: Path, splits: dict[str, list[Row]]) -> None:
    """No document, context or parent may be in two of the splits.

    What was fitted on it would be too sure of it.
    """
    kinds: dict[str, Callable[[Row], str]] = {
        "documents": lambda row: row.document_id,
        "contexts": lambda row: row.context_id or context_id(row.context),
        "rows with what was derived from them": lambda row: row.parent_id or row.id,
    }
    for kind, name_of in kinds.items():
        found = {fold: {name_of(row) for row in rows} - {""} for fold, rows in splits.items()}
        for first, second in itertools.combinations(found, 2):
            shared = sorted(found[first] & found[second])
            if shared:
                raise UserError(
                    f"{data}: {len(shared)} {kind} are in {first} and in {second}, for example "
                    f"{', '.join(shared[:3])}: confidence fitted on them would be too high; split "
                    "again"
                )


def describe(calibration: Calibration) -> str:
    """The outcome for a person, in a few lines."""
    threshold, details = calibration.threshold, calibration.details
    mixture = details["mixture"]
    lines = [f"threshold {threshold.value:.4f}: {threshold.promise()}"]
    if threshold.guarantee is not None:
        g = threshold.guarantee
        unit = "questions, taken for independent" if "assumes" in g["unit"] else "contexts"
        lines.append(
            f"certified by {g['procedure']} on {g['rows']} {unit} ({mixture['rows']} rows): "
            f"{g['accepted']} answered, {g['errors']} wrong"
        )
    else:
        if details["infeasible"] is not None:
            lines.append(details["infeasible"]["text"])
        reached = details["without_guarantee"]["reached"]
        lines.append(
            f"{_aim(details['without_guarantee'])}; it answers {reached['coverage']:.0%} of "
            f"validation, {reached['wrong']} of {reached['of']} wrongly"
        )
    if calibration.routing and threshold.guarantee is not None:
        lines.append(f"it covers the policy '{threshold.guarantee['routing']}' as a whole")
    for name, used in (("right", calibration.correct), ("sufficient", calibration.sufficient)):
        lines.append(f"P({name}) from {', '.join(used.signals)} by {used.method}")
    for name, why in details["left_out"].items():
        lines.append(f"left out: {name}, {why}")
    before, after = (details["reliability"][when]["ece"]["value"] for when in ("before", "after"))
    if before is not None and after is not None:
        lines.append(f"calibration error of its answers {before:.3f} before, {after:.3f} after")
    return "\n".join(lines)


def _aim(without: dict[str, Any]) -> str:
    if without["aim"] == "coverage":
        share = without["coverage"]
        return f"the threshold is to answer {share:.0%} of the questions, chosen on validation"
    if without["aim"] == "f1":
        return "the threshold has the best F1 on validation"
    cost = without["cost"]
    return (
        f"the threshold is the cheapest on validation: a wrong answer costs {cost['wrong']:g}, "
        f"an abstention {cost['abstain']:g}"
    )
