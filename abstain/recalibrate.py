"""A new threshold from audits: the same confidence, certified once more on what is asked today.

The older third of the audited questions chooses candidates, the rest certifies, as validation and
calibration do in `abstain calibrate`; one question a context.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from abstain import drift, retrieve
from abstain.calibration import Calibration
from abstain.cascade import named
from abstain.drift import Audit, Watch
from abstain.ledger import Entry
from abstain.policy import RoutingPolicy
from abstain.queue import Item
from abstain.queue_export import row_of
from abstain.router import Threshold
from abstain.run import RunFile, policy_hash, read_run_file
from abstain.threshold import Goal, Guarantee, Units, candidates, certify
from abstain.unguaranteed import NEVER
from curate.errors import UserError
from curate.record import digest

SELECTING = 1 / 3  # of the audits, the oldest, choose candidates
MINIMUM = 30


@dataclass(frozen=True)
class Recalibrated:
    """What the audits gave."""

    threshold: float
    before: float | None
    guarantee: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def audits_of(
    run: Path, policy: RoutingPolicy, items: Sequence[Item]
) -> tuple[RunFile, Calibration, list[Audit]]:
    """The run, its calibration, and the audits of exactly this run under this policy."""
    stored = read_run_file(run)
    calibration = stored.calibration
    if calibration is None:
        raise UserError(f"{run}: is not calibrated; run `abstain calibrate` first")
    name = named(policy, retrieve.make(policy.retriever))
    decided_by = digest(policy_hash(run, stored.contract, calibration), name)
    return stored, calibration, drift.audits(items, decided_by, calibration.right_f1)


def watched(run: Path, policy: RoutingPolicy, items: Sequence[Item]) -> Watch:
    """What the audits say of the run's promise, without a server."""
    _, calibration, found = audits_of(run, policy, items)
    threshold = calibration.threshold
    reference = calibration.details.get("reference") or ()
    value = NEVER if threshold.value is None else threshold.value
    return drift.watch(found, value, threshold.guarantee, reference)


def recalibrate(
    run: Path, policy: RoutingPolicy, items: Sequence[Item], goal: Goal, again: bool
) -> Recalibrated:
    """Certify a threshold on the audits and store it in the run.

    Raises `UserError`, and changes nothing, where no threshold can be certified; it says how many
    audits would do.
    """
    if not policy.is_plain:
        raise UserError(
            "audits tell of a policy that looks once: export the queue, and certify this one with "
            "`abstain calibrate RUN --policy`"
        )
    stored, calibration, found = audits_of(run, policy, items)
    looked = [one for one in found if one.looks]
    one_each = list({one.context: one for one in reversed(looked)}.values())[::-1]
    if len(one_each) < MINIMUM:
        raise UserError(
            f"{len(one_each)} audited contexts of this run as it is, and at least {MINIMUM} are "
            "needed; let more be audited (audit_share), and answered"
        )
    cut = round(SELECTING * len(one_each))
    rows = [row_of(item) for item in items if item.audited and item.status == "answered"]
    target = f"target risk {goal.risk:g}, δ {goal.delta:g}, on audits"
    entry = Entry.of(target, rows, str(goal))
    ledger = stored.ledger.with_entry(run, entry, again)
    rest = _units(one_each[cut:])
    outcome = certify(candidates(_units(one_each[:cut]), len(rest), goal), rest, goal)
    RunFile(stored.contract, calibration, ledger).write(run)  # tried is tried
    if not isinstance(outcome, Guarantee):
        raise UserError(f"{outcome.text('audited contexts')}; the threshold stays as it was")
    guarantee = {
        **outcome.to_json(),
        "loss": "answered, and not right by what a person said",
        "unit": "one audited question a context",
        "mixture": {"rows": "audited in service"},
        "certifications": ledger.tries(entry),
    }
    before = calibration.threshold.value
    changed = replace(calibration, threshold=Threshold(outcome.threshold), routing="")
    guarantee["policy_hash"] = policy_hash(run, stored.contract, changed)
    promised = replace(changed, threshold=Threshold(outcome.threshold, guarantee))
    RunFile(stored.contract, promised, ledger).write(run)
    return Recalibrated(outcome.threshold, before, guarantee)


def _units(found: Sequence[Audit]) -> Units:
    looks = [one.looks[0] for one in found]
    return Units(
        np.array([look.confidence for look in looks]),
        np.array([np.isfinite(look.confidence) for look in looks], dtype=bool),
        np.array([look.right for look in looks], dtype=bool),
    )
