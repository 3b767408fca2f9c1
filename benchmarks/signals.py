"""What each signal is worth and costs, as a page: from what `abstain evaluate` has measured.

    python -m benchmarks.signals EVALUATION [--docs docs/signals.md]

EVALUATION is the folder of an `abstain evaluate RUN --data DIR --out EVALUATION --signals all`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import table
from curate.console import interval
from curate.files import read_json, write_text

COMBINED = "combined: "


def main() -> None:
    """Parse arguments, read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--docs", type=Path, help="write the page of the documentation here")
    arguments = parser.parse_args()
    text = document(read_json(arguments.evaluation / "metrics.json"))
    print(text)
    if arguments.docs is not None:
        write_text(arguments.docs, text)


def document(metrics: dict[str, Any]) -> str:
    """Markdown: signals by their AUROC against the label, the combinations last."""
    lines = metrics["by_signal"]
    single = [line for line in lines if not line["name"].startswith(COMBINED)]
    single.sort(key=lambda line: -(line["auroc_sufficient"]["value"] or 0))
    combined = [line for line in lines if line["name"].startswith(COMBINED)]
    best = single[0]
    return (
        "# What each signal is worth\n\n"
        "Made by `python -m benchmarks.signals EVALUATION --docs docs/signals.md`; do not edit.\n\n"
        f"{metrics['rows']} test questions; 95 % intervals over {metrics['interval_unit']}s in "
        "brackets. *Sufficient* and *right* are AUROCs against the label and against whether what "
        "was answered is right; AURC is the area under the risk-coverage curve, less is better. "
        "*Answered at 20 %* is the largest share of the questions that the signal could pick with "
        "at most 20 % of the answers wrong, found on these rows; *gain* how much more that is "
        "than with the probability of the abstention phrase alone (paired). Passes and "
        "milliseconds are what it costs beyond the answer, which takes "
        f"{metrics['milliseconds_an_answer']:.0f} ms; signals of one kind share them.\n\n"
        f"The best single signal is `{best['name']}`, {interval(best['auroc_sufficient'])}.\n\n"
        f"{_table([*single, *combined])}\n\n"
        f"## What the calibrators are made of\n\n{_calibrators(metrics['calibration'])}\n"
    )


def _table(lines: Sequence[dict[str, Any]]) -> str:
    risks = [f"{head} {share} %" for share in (10, 20) for head in ("answered at", "gain at")]
    header = ("signal", "sufficient", "right", "AURC", *risks, "passes", "ms")
    cells = []
    for line in lines:
        values = [line["auroc_sufficient"], line["auroc_correct"], line["aurc"]]
        for at in ("coverage_at_risk_10", "coverage_at_risk_20"):
            values += [line[at], line["gain"][at] if line["gain"] else None]
        cost = [f"{line[key]:.0f}" if line[key] else "" for key in ("passes", "milliseconds")]
        cells.append((line["name"], *map(interval, values), *cost))
    return table(header, cells)


def _calibrators(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "The run was not calibrated: confidences are the model's own."
    lines = []
    for name, chosen in calibration["selection"].items():
        taken = chosen["chosen"]
        lines.append(
            f"- *{name}*: {taken['method']} of {', '.join(taken['signals'])}; cross-validated "
            f"log-loss {taken['log_loss']:.3f}, {taken['behind']:.3f} behind the least of "
            f"{chosen['of']} candidates (standard error {taken['standard_error']:.3f})."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
