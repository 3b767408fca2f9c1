"""`abstain evaluate`: metrics, predictions and the report of a run on labelled rows."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from abstain import report
from abstain.answer import Answering
from abstain.evidence import Evidence
from abstain.groups import resampling_groups
from abstain.metrics import Judged, aurc, compute, coverage_at_risk, with_intervals
from abstain.predict import Predictions, predict
from abstain.signals import SIGNALS, Array
from curate.auroc import auroc
from curate.bootstrap import intervals
from curate.errors import UserError
from curate.files import replacing, writable_folder, write_json, write_text
from curate.record import Row, read_fold, read_rows

log = logging.getLogger(__name__)

_PHRASE = "p_abstain"  # what the other signals are compared with
_GAIN = "gain in "
_WORTH = ("auroc_sufficient", "auroc_correct", "aurc", "coverage_at_risk_10", "coverage_at_risk_20")


def evaluate(
    run: str,
    answerer: Answering,
    data: Path,
    out: Path,
    names: Sequence[str],
    evidence: Evidence,
) -> dict[str, Any]:
    """Evaluate a run (or untrained model, or server) and write the three files into ``out``.

    ``evidence``, for the signals ``names``, is gathered beside what the run's own calibration
    needs; what cannot be had of them is told in a warning.
    """
    writable_folder(out)
    rows = read_fold(data, "test") if data.is_dir() else read_rows(data)
    rows = [row for row in rows if row.sufficient is not None]
    if not rows:
        raise UserError(f"{data}: no labelled row to evaluate on")
    calibration = answerer.calibration
    own = answerer.evidence
    answerer.gather(own.joined(evidence))
    if own.dropout and evidence.dropout and own.dropout != evidence.dropout:
        log.warning("MC dropout is drawn as the run's calibration has it: %s", own.dropout)
    if own.samples and evidence.samples and own.samples != evidence.samples:
        log.warning("answers are sampled %d times, as the run's calibration has it", own.samples)
    answerer.seconds.clear()
    predictions = predict(answerer, rows, "evaluate")
    for name in names:
        if name not in predictions.signals and not SIGNALS[name].is_free:
            log.warning("signal '%s' is left out: %s cannot give it", name, run)
    metrics = measure(predictions, _costs(answerer, len(rows)))
    metrics["run"] = run
    metrics["data"] = str(data)
    metrics["contract"] = answerer.contract.to_json()
    metrics["calibration"] = calibration.to_json() if calibration is not None else None
    write_json(out / "metrics.json", metrics)
    store(predictions, out)
    write_text(out / "report.html", report.render(metrics, predictions, calibration))
    return metrics


def store(predictions: Predictions, out: Path) -> None:
    """Write ``predictions.parquet``, which `abstain.compare.read_evaluation` reads."""
    with replacing(out / "predictions.parquet") as temporary:
        pq.write_table(pa.table(predictions.table()), temporary, compression="zstd")


@dataclass(frozen=True)
class Cost:
    """What a signal costs beyond the answer itself."""

    passes: float
    milliseconds: float  # an answer; shared with the other signals of its kind


def _costs(answerer: Answering, rows: int) -> dict[str, Cost]:
    """Of each signal, and of the answer itself under the name "answer"."""
    seconds = {kind: 1000 * spent / rows for kind, spent in answerer.seconds.items()}
    costs = {"answer": Cost(1.0, seconds["answer"])}
    for name, signal in SIGNALS.items():
        spent = seconds.get(signal.evidence, 0.0)
        costs[name] = Cost(signal.passes(answerer.evidence, answerer.blocks), spent)
    return costs


def measure(predictions: Predictions, costs: dict[str, Cost]) -> dict[str, Any]:
    """The two blocks of metrics with their intervals, and the tables by reason, method, signal."""
    rows = predictions.rows
    groups, unit = resampling_groups(rows)
    blocks: dict[str, Any] = {"raw": with_intervals(predictions.raw, groups)}
    if predictions.routed is not None:
        blocks["routed"] = with_intervals(predictions.routed, groups)
    return {
        **blocks,
        "rows": len(rows),
        "interval_unit": unit,
        "by_reason": _table(predictions, groups, lambda row: row.reason or "sufficient"),
        "by_method": _table(predictions, groups, lambda row: row.method),
        "by_mixture": _table(
            predictions, groups, lambda row: "natural" if row.method == "human" else "derived"
        ),
        "by_signal": _by_signal(predictions, groups, costs),
        "milliseconds_an_answer": costs["answer"].milliseconds,
    }


def _table(
    predictions: Predictions, groups: Sequence[str], key: Callable[[Row], str]
) -> list[dict[str, Any]]:
    """Coverage and scores of the final block for each kind of row."""
    judged = predictions.routed or predictions.raw
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(predictions.rows):
        members[key(row)].append(index)
    result = []
    for name, indices in sorted(members.items()):
        some = judged.take(np.array(indices))
        values = compute(some)
        risk = intervals(partial(_risk, some), [groups[i] for i in indices])
        raw = compute(predictions.raw.take(np.array(indices)))
        result.append(
            {
                "name": name,
                "rows": len(indices),
                "em": values["em"],
                "f1": values["f1"],
                "raw_coverage": raw["coverage"],
                "coverage": values["coverage"],
                **risk,
                "mean_confidence": float(judged.confidence[indices].mean()),
            }
        )
    return result


def _risk(judged: Judged, rows: Any) -> dict[str, float]:
    wrong = ~judged.right[rows][judged.answered[rows]]
    return {"selective_risk": float(wrong.mean()) if len(wrong) else float("nan")}


def _by_signal(
    predictions: Predictions, groups: Sequence[str], costs: dict[str, Cost]
) -> list[dict[str, Any]]:
    """What each signal is worth by itself, against the label and against rightness, and its cost.

    The risk-coverage area ranks the answers given by the signal; less is better. ``gain`` is what
    it has over the probability of the abstention phrase, paired: on the same draws.
    """
    raw = predictions.raw
    scores = {
        **predictions.signals,
        "combined: p_sufficient": raw.p_sufficient,
        "combined: confidence": raw.confidence,
    }
    found = intervals(partial(_worths, scores, raw), groups)
    table = []
    for name in scores:
        cost = costs.get(name)
        gain = {key: found[f"{name} {_GAIN}{key}"] for key in _WORTH} if _PHRASE in scores else None
        table.append(
            {
                "name": name,
                **{key: found[f"{name} {key}"] for key in _WORTH},
                "gain": gain,
                "passes": cost.passes if cost is not None else None,
                "milliseconds": cost.milliseconds if cost is not None else None,
            }
        )
    return table


def _worths(scores: dict[str, Array], raw: Judged, rows: Any) -> dict[str, float]:
    """Every signal's worth, and how much more that is than the abstention phrase's."""
    judged = raw.take(rows)
    worth = {name: _worth(score[rows], judged) for name, score in scores.items()}
    found = {f"{name} {key}": value for name, w in worth.items() for key, value in w.items()}
    if _PHRASE in worth:
        for name, own in worth.items():
            for key, value in own.items():
                found[f"{name} {_GAIN}{key}"] = value - worth[_PHRASE][key]
    return found


def _worth(score: Array, judged: Judged) -> dict[str, float]:
    said, right = score[judged.answered], judged.right[judged.answered]
    by_score = replace(judged, confidence=score)
    values = (
        auroc(score, judged.sufficient),
        auroc(said, right),
        aurc(said, right),
        coverage_at_risk(by_score, 0.10),
        coverage_at_risk(by_score, 0.20),
    )
    return dict(zip(_WORTH, values, strict=True))
