"""`abstain evaluate`: metrics, predictions and the report of a run on labelled rows."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from abstain import report
from abstain.answerer import Answerer
from abstain.groups import context_groups
from abstain.metrics import auroc, compute, with_intervals
from abstain.predict import Predictions, predict
from abstain.signals import SIGNALS, available
from curate.errors import UserError
from curate.files import replacing, writable_folder, write_json, write_text
from curate.record import Row, read_fold, read_rows

FEW_DOCUMENTS = 20


def evaluate(name: str, answerer: Answerer, data: Path, out: Path) -> dict[str, Any]:
    """Evaluate the run (or untrained model) ``name`` and write the three files into ``out``."""
    writable_folder(out)
    rows = read_fold(data, "test") if data.is_dir() else read_rows(data)
    rows = [row for row in rows if row.sufficient is not None]
    if not rows:
        raise UserError(f"{data}: no labelled row to evaluate on")
    calibration = answerer.calibration
    predictions = predict(answerer, rows, "evaluate")
    metrics = measure(predictions)
    metrics["run"] = name
    metrics["data"] = str(data)
    metrics["calibration"] = calibration.to_json() if calibration is not None else None
    write_json(out / "metrics.json", metrics)
    with replacing(out / "predictions.parquet") as temporary:
        pq.write_table(pa.table(predictions.table()), temporary, compression="zstd")
    write_text(out / "report.html", report.render(metrics, predictions, calibration))
    return metrics


def measure(predictions: Predictions) -> dict[str, Any]:
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
        "by_reason": _table(predictions, lambda row: row.reason or "sufficient"),
        "by_method": _table(predictions, lambda row: row.method),
        "by_signal": _by_signal(predictions),
    }


def resampling_groups(rows: Sequence[Row]) -> tuple[list[str], str]:
    """What the bootstrap draws: documents, or contexts where there are too few documents."""
    documents = [row.document_id for row in rows]
    if len(set(documents)) >= FEW_DOCUMENTS:
        return documents, "document"
    return context_groups(rows), "context"


def _table(predictions: Predictions, key: Callable[[Row], str]) -> list[dict[str, Any]]:
    """Coverage and scores of the final block for each kind of row."""
    judged = predictions.routed or predictions.raw
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(predictions.rows):
        members[key(row)].append(index)
    result = []
    for name, indices in sorted(members.items()):
        values = compute(judged.take(np.array(indices)))
        raw = compute(predictions.raw.take(np.array(indices)))
        result.append(
            {
                "name": name,
                "rows": len(indices),
                "em": values["em"],
                "f1": values["f1"],
                "raw_coverage": raw["coverage"],
                "coverage": values["coverage"],
                "mean_confidence": float(judged.confidence[indices].mean()),
            }
        )
    return result


def _by_signal(predictions: Predictions) -> list[dict[str, Any]]:
    """What each signal is worth by itself: against the label, and against rightness."""
    raw = predictions.raw
    has_head = any(answer.head_logit is not None for answer in predictions.answers)
    scores = {
        name: np.array([SIGNALS[name](answer) for answer in predictions.answers])
        for name in available(has_head)
    }
    scores["combined: p_sufficient"] = raw.p_sufficient
    scores["combined: confidence"] = raw.confidence
    return [
        {
            "name": name,
            "auroc_sufficient": _number(auroc(score, raw.sufficient)),
            "auroc_correct": _number(auroc(score[raw.answered], raw.right[raw.answered])),
        }
        for name, score in scores.items()
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
