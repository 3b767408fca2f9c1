"""``report.html`` of an evaluation: one file, no network."""

from typing import Any

from abstain import charts, page
from abstain.calibrate import describe
from abstain.calibration import Calibration
from abstain.predict import Predictions
from abstain.router import Threshold

_EXAMPLES = 4
_HEADLINES = {
    "coverage": "answered, of all questions",
    "selective_risk": "of the answers, wrong",
    "no_ans_accuracy": "of the unanswerable, declined",
    "has_ans_em": "of the answerable, answered exactly",
}
_RULES = {
    "at_or_above_threshold": "answered",
    "uncalibrated": "answered",
    "below_threshold": "declined: confidence below the threshold",
    "head_declines": "declined: the sufficiency head reads that the context does not tell",
    "model_abstained": "declined: the model says the context does not tell",
}


def render(
    metrics: dict[str, Any], predictions: Predictions, calibration: Calibration | None
) -> str:
    """The page, from the same numbers as ``metrics.json``."""
    final = predictions.routed or predictions.raw
    used = calibration.threshold if calibration is not None else Threshold(None)
    threshold = used.value
    return page.render(
        "report.html.j2",
        metrics=metrics,
        block=metrics.get("routed", metrics["raw"]),
        headlines=_HEADLINES,
        calibration=describe(calibration).split("\n") if calibration is not None else [],
        guaranteed=used.guarantee is not None,
        charts=[
            (
                "Risk against coverage",
                "The rows that the model answers, most confident first: how many can be answered "
                "before too many are wrong.",
                charts.risk_coverage(predictions.raw, predictions.routed, threshold),
            ),
            (
                "Reliability",
                "Of the answers given with confidence 0.8, are four in five right? On the line, "
                "yes. Bars are 95 % intervals.",
                charts.reliability(predictions.raw),
            ),
            (
                "Telling sufficient from insufficient",
                "The further apart the two, the better the model knows what its context holds.",
                charts.histogram(final),
            ),
        ],
        examples=_examples(predictions),
    )


def _examples(predictions: Predictions) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows to look at, of the four kinds that matter; the surest of each."""
    final = predictions.routed or predictions.raw
    kinds = (
        ("Answered, and right", final.answered & final.right, True),
        ("Answered, and wrong", final.answered & ~final.right, True),
        ("Declined, rightly", ~final.answered & ~final.sufficient, False),
        ("Declined, though the context tells", ~final.answered & final.sufficient, False),
    )
    result = []
    for title, flags, surest_first in kinds:
        found = sorted(
            (i for i in range(len(flags)) if flags[i]),
            key=lambda i: -final.confidence[i] if surest_first else final.p_sufficient[i],
        )
        examples = [
            {
                "row": predictions.rows[i],
                "said": predictions.answers[i].text,
                "confidence": final.confidence[i],
                "why": _RULES[predictions.rules[i]],
            }
            for i in found[:_EXAMPLES]
        ]
        result.append((f"{title} ({len(found)})", examples))
    return result
