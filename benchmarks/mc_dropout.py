"""MC dropout's price and worth: every scope and number of masks against the answer alone.

    python -m benchmarks.mc_dropout RUN --data DIR [--rows 150] [--out FILE.json] [--docs PAGE.md]

Questions that RUN was not trained on (the test split of the data set that it was trained on) are
answered, then sampled in each scope at each T, in turns over the same contexts within one run, so
that a slow hour is slow for all; stopped, it goes on where it was. On 2 cores, 150 questions take
three quarters of an hour, nearly all of it `full`. Printed are milliseconds an answer, the ratio to
the greedy answer alone, AUROC of dropout's signals against the label and against rightness with
95 % intervals over contexts, the paired differences from `full` at its largest T and from what the
model says without dropout, and Spearman's correlation with `full`.
"""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

from abstain.answer import Answer
from abstain.answerer import Answerer, load_answerer
from abstain.evidence import DropoutSettings, Evidence, Scope
from abstain.groups import context_groups, draw_contexts
from abstain.metrics import Judged
from abstain.predict import judge
from abstain.run import weights_hash
from abstain.signals import SIGNALS, Array, available, matrix
from benchmarks.mc_dropout_page import GREEDY, document
from benchmarks.paths import ROOT
from curate.auroc import auroc
from curate.bootstrap import intervals
from curate.files import write_json, write_text
from curate.record import Row, digest, read_fold

SAMPLES = (1, 5, 10, 20, 50)
FULL_AT_MOST = 20
OTHER_K = (2, 8, 16)
PLAIN = ("p_abstain", "sufficiency_head", "mean_log_likelihood")
DROPOUT = tuple(name for name, s in SIGNALS.items() if s.needs == "dropout" and s.head != "probe")


def draw_rows(data: Path, count: int) -> list[list[Row]]:
    """Human-written test questions, whole contexts by seed, until there are enough."""
    human = [row for row in read_fold(data, "test") if row.method == "human"]
    return draw_contexts(human, count, seed=29)


def settings_of(
    samples: Sequence[int], top_k: int, blocks: int
) -> dict[str, DropoutSettings | None]:
    """Every setting by its name; `full` only as far as a day allows."""
    found: dict[str, DropoutSettings | None] = {GREEDY: None}
    for scope in get_args(Scope):
        for count in samples:
            if scope != "full" or count <= FULL_AT_MOST:
                found[f"{scope} T={count}"] = DropoutSettings(count, scope, top_k)
    for k in (k for k in OTHER_K if k < blocks):
        most = reference_samples(samples)
        found[f"top-{k} T={most}"] = DropoutSettings(most, "top-k", k)
    return found


def reference_samples(samples: Sequence[int]) -> int:
    """The T of `full` that everything is compared with."""
    return max(count for count in samples if count <= FULL_AT_MOST)


def measure(
    answerer: Answerer, rows: list[Row], settings: dict[str, DropoutSettings | None]
) -> dict[str, Any]:
    """One context: seconds and signals of every setting in turn, and how the answers are judged."""
    seconds, signals = {}, {}
    judged: dict[str, list[bool]] = {}
    for name, setting in settings.items():
        answerer.gather(Evidence(dropout=setting))
        answerer.seconds.clear()
        found = dict(pair for pack in answerer.answer(rows) for pair in pack)
        answers = [found[i] for i in range(len(rows))]
        seconds[name] = sum(answerer.seconds.values())
        given = available(answers)  # a run without a head has no signals of one
        names = [name for name in (PLAIN if setting is None else DROPOUT) if name in given]
        values = matrix(rows, answers, names)
        signals[name] = {signal: values[:, i].tolist() for i, signal in enumerate(names)}
        if setting is None:
            judged = _judged(rows, answers)
    return {"seconds": seconds, "signals": signals, **judged}


def _judged(rows: list[Row], answers: list[Answer]) -> dict[str, list[bool]]:
    nothing = np.zeros(len(rows))
    found = judge(rows, answers, nothing, nothing, 0.5, [a.abstained for a in answers])
    return {name: getattr(found, name).tolist() for name in ("sufficient", "answered", "right")}


def measure_all(
    answerer: Answerer,
    contexts: Sequence[list[Row]],
    settings: dict[str, DropoutSettings | None],
    kept: Path,
) -> list[dict[str, Any]]:
    """All contexts; a run that was stopped goes on where it was. The first one warms up."""
    ids = [row.id for rows in contexts for row in rows]
    run = answerer.loaded.run
    # Of another run, or on another machine, nothing that was measured is true.
    weights = weights_hash(run) if run is not None else ""
    key = digest(repr(settings), weights, machine(), *ids)
    done: list[dict[str, Any]] = []
    if kept.exists():
        stored = json.loads(kept.read_text(encoding="utf-8"))
        # One that came to its end is measured anew.
        if stored["key"] == key and len(stored["contexts"]) < len(contexts):
            done = stored["contexts"]
    with tqdm(total=len(contexts), initial=len(done), unit="context") as bar:
        few = {name: s for name, s in settings.items() if s is None or s.samples <= 5}
        measure(answerer, contexts[0], few)
        for rows in contexts[len(done) :]:
            done.append(measure(answerer, rows, settings))
            write_json(kept, {"key": key, "contexts": done})
            bar.update()
    return done


def worth(
    values: dict[str, Array],
    judged: Judged,
    groups: Sequence[str],
    reference: dict[str, Array],
    plain: dict[str, Array],
) -> dict[str, Any]:
    """AUROC of each signal, less the reference's and less its plain twin's, rank correlation."""
    result = {}
    for name, value in values.items():
        others = {}
        if name in reference:
            others = {"full": reference[name], "plain": plain[plain_twin(name)]}
        found = intervals(partial(_aurocs, value, others, judged), groups)
        correlation = _rank_correlation(value, reference.get(name))
        result[name] = {**found, "rank_correlation": correlation}
    return result


def plain_twin(name: str) -> str:
    """The signal without dropout that one of dropout's is to be held against."""
    if name.endswith("p_abstain"):
        return "p_abstain"
    return "sufficiency_head" if name.endswith("head") else "mean_log_likelihood"


def _rank_correlation(value: Array, other: Array | None) -> float | None:
    """Spearman's; None where a side is constant, as a spread over one mask is."""
    if other is None or np.ptp(value) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(value, other).statistic)


def _aurocs(value: Array, others: dict[str, Array], judged: Judged, rows: Any) -> dict[str, float]:
    some = judged.take(rows)
    said, right = some.answered, some.right[some.answered]

    def both(score: Array) -> tuple[float, float]:
        return auroc(score[rows], some.sufficient), auroc(score[rows][said], right)

    sufficient, correct = both(value)
    found = {"sufficient": sufficient, "correct": correct}
    for name, other in others.items():
        its_sufficient, its_correct = both(other)
        found[f"sufficient_less_{name}"] = sufficient - its_sufficient
        found[f"correct_less_{name}"] = correct - its_correct
    return found


def main() -> None:
    """Parse arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES, help="values of T")
    parser.add_argument("--top-k", type=int, default=DropoutSettings().top_k)
    parser.add_argument("--docs", type=Path, help="write the page of the documentation here")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmarks" / "mc_dropout.json")
    arguments = parser.parse_args()
    if min(arguments.samples) > FULL_AT_MOST:
        parser.error(f"--samples needs a T of at most {FULL_AT_MOST}: `full` is the reference")
    answerer = load_answerer(arguments.run)
    contexts = draw_rows(arguments.data, arguments.rows)
    rows = [row for group in contexts for row in group]
    most = reference_samples(arguments.samples)
    settings = settings_of(arguments.samples, arguments.top_k, answerer.blocks)
    kept = arguments.out.with_suffix(".partial.json")
    found = measure_all(answerer, contexts, settings, kept)
    seconds = {name: sum(context["seconds"][name] for context in found) for name in settings}
    judged = _joined(found)
    groups = context_groups(rows)
    reference, plain = _values(found, f"full T={most}"), _values(found, GREEDY)
    entries = [
        {
            "setting": name,
            "milliseconds": 1000 * seconds[name] / len(rows),
            "ratio": seconds[name] / seconds[GREEDY],
            "signals": worth(_values(found, name), judged, groups, reference, plain),
        }
        for name in settings
    ]
    result = {
        "rows": len(rows),
        "contexts": len(contexts),
        "answered": int(judged.answered.sum()),
        "top_k": arguments.top_k,
        "reference_samples": most,
        "machine": machine(),
        "settings": entries,
    }
    write_json(arguments.out, result)
    text = document(result)
    print(text)
    if arguments.docs is not None:
        write_text(arguments.docs, text)


def machine() -> str:
    """What the milliseconds were measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores with {torch.get_num_threads()} threads"


def _joined(found: Sequence[dict[str, Any]]) -> Judged:
    """The contexts' judgements one behind the other; what no table here needs is zero."""
    flags = {
        name: np.array([value for context in found for value in context[name]], dtype=bool)
        for name in ("sufficient", "answered", "right")
    }
    nothing = np.zeros(len(flags["right"]))
    return Judged(nothing, nothing, **flags, confidence=nothing, p_sufficient=nothing)


def _values(found: Sequence[dict[str, Any]], setting: str) -> dict[str, Array]:
    names = found[0]["signals"][setting]
    return {
        name: np.array([v for context in found for v in context["signals"][setting][name]])
        for name in names
    }


if __name__ == "__main__":
    main()
