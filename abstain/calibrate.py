"""`abstain calibrate`: validation fits and selects everything, calibration certifies once."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abstain import platt
from abstain.answer import Answer
from abstain.answerer import Answerer
from abstain.calibration import RIGHT_F1, Calibration
from abstain.groups import context_groups
from abstain.metrics import Judged
from abstain.predict import answer_all, judge
from abstain.router import Policy
from abstain.run import RunFile
from abstain.signals import Array, available, matrix
from abstain.threshold import Guarantee, Infeasible, by_cost, candidates, certify
from curate.errors import UserError
from curate.files import writable_folder
from curate.record import Row, digest, read_fold

MINIMUM_ROWS = 20


@dataclass(frozen=True)
class Target:
    """What is asked of the threshold."""

    risk: float = 0.10
    delta: float = 0.05
    cost_wrong: float = 1.0
    cost_abstain: float = 0.5
    seed: int = 13


def calibrate(
    run: Path, data: Path, answerer: Answerer, target: Target, again: bool
) -> Calibration:
    """Fit on validation, certify once on calibration, and store the result in the run.

    A second certification on the same rows is refused unless ``again``: the best of several
    tries does not hold the promise of one. The same request on the same rows is no second try.
    """
    writable_folder(run)
    validation, calibration = read_fold(data, "validation"), read_fold(data, "calibration")
    _refuse_shared_documents(data, validation, calibration)
    if len(validation) < MINIMUM_ROWS:
        raise UserError(
            f"{data}: {len(validation)} validation rows, and at least {MINIMUM_ROWS} are needed "
            "to fit a calibrator; give folds.validation a larger share in the recipe"
        )
    certified_on = _digest(calibration)
    request = digest(
        repr(target.risk), repr(target.delta), str(target.seed), certified_on, _digest(validation)
    )
    earlier = _earlier(run, answerer.calibration, certified_on, request, again)

    names = available(answerer.head is not None)
    answers = answer_all(answerer, validation, "validation")
    values = matrix(answers, names)
    _refuse_not_finite(values, names)
    labels = [bool(row.sufficient) for row in validation]
    sufficient = platt.fit(values, labels, names)
    raw = _judge(validation, answers, np.zeros(len(answers)))
    correct = platt.fit(values[raw.answered], raw.right[raw.answered].tolist(), names)
    confidence = correct.probability(values)
    cost = by_cost(confidence, raw.answered, raw.right, target.cost_wrong, target.cost_abstain)

    natural = _is_representative(validation) and _is_representative(calibration)
    representative = [row for row in calibration if not natural or row.method == "human"]
    units = one_row_a_context(representative, target.seed)
    chosen = np.array([not natural or row.method == "human" for row in validation])
    thresholds = candidates(
        confidence[chosen], raw.answered[chosen], len(units), target.risk, target.delta
    )
    unit_answers = answer_all(answerer, units, "calibration")
    unit_values = matrix(unit_answers, names)
    unit_confidence = correct.probability(unit_values)
    judged = _judge(units, unit_answers, unit_confidence)
    outcome = certify(
        thresholds, unit_confidence, judged.answered, judged.right, target.risk, target.delta
    )
    result = _result(sufficient, correct, outcome, cost, target, units, natural)
    result.details.update(
        request=request,
        certified_on=certified_on,
        certifications=earlier + 1,
        validation_rows=len(validation),
    )
    RunFile(answerer.contract, result).write(run)
    return result


def _judge(rows: Sequence[Row], answers: list[Answer], confidence: Array) -> Judged:
    said_no = [answer.abstained for answer in answers]
    return judge(rows, answers, confidence, confidence, RIGHT_F1, said_no)


def _result(
    sufficient: platt.Calibrator,
    correct: platt.Calibrator,
    outcome: Guarantee | Infeasible,
    cost: float,
    target: Target,
    units: Sequence[Row],
    natural: bool,
) -> Calibration:
    mixture = {
        "rows": "natural" if natural else "natural and derived",
        "sufficient": sum(bool(row.sufficient) for row in units),
        "insufficient": sum(not row.sufficient for row in units),
    }
    guarantee: dict[str, Any] | None = None
    threshold = cost
    if isinstance(outcome, Guarantee):
        threshold = outcome.threshold
        guarantee = {
            **outcome.to_json(),
            "loss": f"answered, and not (sufficient and F1 at least {RIGHT_F1})",
            "unit": "one seeded question a context",
            "mixture": mixture,
            "procedure": "fixed-sequence Learn-then-Test, exact binomial tail",
            # The promise covers this one frozen policy: other weights are another policy.
            "policy_hash": digest(str(correct.to_json()), repr(threshold)),
        }
    infeasible = outcome.to_json() if isinstance(outcome, Infeasible) else None
    details = {
        "target_risk": target.risk,
        "delta": target.delta,
        "infeasible": infeasible,
        "mixture": mixture,
        "cost": {
            "wrong": target.cost_wrong,
            "abstain": target.cost_abstain,
            "threshold": cost,
        },
    }
    return Calibration(sufficient, correct, Policy(threshold, guarantee), RIGHT_F1, details)


def one_row_a_context(rows: Sequence[Row], seed: int) -> list[Row]:
    """One row of each context, drawn by seed: questions that share a context are not independent.

    Rows without a context share none, and each stands for itself.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, group in zip(rows, context_groups(rows), strict=True):
        groups[group].append(row)
    return [
        random.Random(f"{seed}/{name}").choice(sorted(members, key=lambda row: row.id))
        for name, members in sorted(groups.items())
    ]


def _is_representative(rows: Sequence[Row]) -> bool:
    """Whether natural rows alone hold both labels; else derived ones have to stand in."""
    return len({row.sufficient for row in rows if row.method == "human"}) == 2


def _refuse_shared_documents(data: Path, *folds: Sequence[Row]) -> None:
    train = {row.document_id for row in read_fold(data, "train")}
    for rows in folds:
        shared = sorted({row.document_id for row in rows} & train)
        if shared:
            raise UserError(
                f"{data}: {len(shared)} documents are in train and in {rows[0].fold}, for example "
                f"{', '.join(shared[:3])}: confidence fitted on them would be too high; split again"
            )


def _refuse_not_finite(values: Array, names: Sequence[str]) -> None:
    for column, name in enumerate(names):
        bad = int((~np.isfinite(values[:, column])).sum())
        if bad:
            raise UserError(f"signal '{name}' is not finite on {bad} validation rows; train again")


def _digest(rows: Sequence[Row]) -> str:
    return digest(*(row.id + row.content_hash for row in rows))


def _earlier(
    run: Path, stored: Calibration | None, certified_on: str, request: str, again: bool
) -> int:
    """How many other certifications these calibration rows have served for this run.

    Fresh rows have served for none. The same request on the same rows, validation's among them, is
    one certification however often it is made; another one is refused unless ``again``.
    """
    details = stored.details if stored is not None else {}
    if details.get("certified_on") != certified_on:
        return 0
    count = int(details["certifications"])
    if details["request"] == request:
        return count - 1
    if not again:
        raise UserError(
            f"{run}: its calibration rows have been used for a certification (target risk "
            f"{details['target_risk']}, δ {details['delta']}). Trying again until one holds would "
            "void the promise; use fresh rows, or --again, which records the number of tries"
        )
    return count


def describe(calibration: Calibration) -> str:
    """The outcome for a person, in a few lines."""
    policy, details = calibration.policy, calibration.details
    mixture = details["mixture"]
    lines = [
        f"threshold {policy.threshold:.4f}: {policy.promise()}"
        if policy.threshold is not None and math.isfinite(policy.threshold)
        else "no threshold",
    ]
    if policy.guarantee is not None:
        g = policy.guarantee
        lines.append(
            f"certified on {g['rows']} contexts ({mixture['rows']} rows, one question each): "
            f"{g['accepted']} answered, {g['errors']} wrong, p = {g['p_value']:.4f}"
        )
    else:
        cost = details["cost"]
        lines.append(details["infeasible"]["text"])
        lines.append(
            f"the threshold is the cheapest on validation: a wrong answer costs {cost['wrong']:g}, "
            f"an abstention {cost['abstain']:g}"
        )
    if details["certifications"] > 1:
        lines.append(f"certification number {details['certifications']} on these rows: see --again")
    return "\n".join(lines)
