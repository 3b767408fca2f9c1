"""`train plan --decide`: is fine-tuning the thing to do? Measured first, then weighed.

What is measured costs about two training runs: the untrained model, prompted and with worked
examples; a learning curve; what the model knows without any context; what training has unlearnt.
Everything is kept in a folder, and done once.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abstain.answer import Answering
from abstain.compare import read_evaluation
from abstain.load import load
from abstain.metrics import Judged, compute
from abstain.model import load_model
from abstain.shots import draw_shots
from curate.bootstrap import Interval, intervals
from curate.contract import Contract
from curate.errors import UserError
from curate.files import read_json, write_json
from curate.record import Row, read_fold, read_parquet
from curate.text import normalise
from train.estimate import GIB
from train.forgetting import forgetting
from train.learning_curve import SECONDS, Curve, judge, learning_curve, part_folder
from train.plan import plan
from train.probes import chat, reply
from train.settings import TrainSettings

SHOTS = 4
_CLOSED_BOOK = 60  # questions asked without their context
_MAX_NEW_TOKENS = 32
# Metrics that a goal may be set on: more is better, and 1 is all there is.
METRICS = (
    "em", "f1", "has_ans_em", "has_ans_f1", "no_ans_accuracy", "abstention_precision",
    "abstention_recall", "abstention_f1", "auroc_sufficient", "auroc_correct", "coverage",
    "coverage_at_risk_05", "coverage_at_risk_10", "coverage_at_risk_20",
)  # fmt: skip


@dataclass(frozen=True)
class DataFacts:
    """How much there is to learn from, and of what kind."""

    rows: int  # of the train split
    contexts: int
    documents: int
    unanswerable: float  # share of the train split
    human: float  # share of it that people wrote, not derived or generated
    # Of the validation rows that people wrote: the context does not hold the answer.
    context_missing: float | None


@dataclass(frozen=True)
class Untrained:
    """The model as it is, with one kind of prompt."""

    name: str
    score: Interval
    milliseconds: float  # an answer


@dataclass(frozen=True)
class Measured:
    """Everything that the decision rests on."""

    metric: str
    goal: float | None
    data: DataFacts
    untrained: list[Untrained]  # the better one first
    trained: Untrained  # on all rows
    curve: Curve
    gain: Interval  # of training over the better untrained prompt, on the same rows
    # Of the untrained model's answers: no words of the context, nor the abstention phrase.
    off_contract: float
    # Share of answerable questions whose answer is in the untrained model's reply.
    closed_book: float  # asked without their context
    grounded: float  # with it, by the better prompt
    train_loss: float  # at the end, a taught token; beside the validation rows'
    validation_loss: float
    forgotten: float  # growth of bits a byte of plain text
    over_refusal: float  # share of everyday questions that now get the abstention phrase
    minutes: float  # of one training run
    memory: float  # GiB that it needs
    machine: float  # GiB that there are


def measure(
    data: Path, out: Path, settings: TrainSettings, metric: str, goal: float | None
) -> Measured:
    """Measure what has not been measured yet; raises `UserError` where the data do not allow it."""
    if metric not in METRICS:
        raise UserError(f"--goal {metric}: no metric to set a goal on; {', '.join(METRICS)}")
    planned = plan(settings, data)
    curve = learning_curve(data, out / "curve", settings, metric, goal)
    run = part_folder(out / "curve")
    trained = Untrained("trained on all rows", curve.scores[-1], _milliseconds(run / "evaluation"))
    untrained = [
        _judged(settings, data, out / "untrained" / str(count), metric, count)
        for count in (0, SHOTS)
    ]
    untrained.sort(key=lambda one: -(one.score["value"] or 0.0))
    better = out / "untrained" / ("0" if untrained[0].name == _name(0) else str(SHOTS))
    before, after = read_evaluation(better), read_evaluation(run / "evaluation")
    gains = intervals(partial(_gain, before.raw, after.raw, metric), before.groups)
    training = read_json(run / "run" / "training.json")["progress"]
    last = [step["answer"] for step in training["history"][-10:]]
    lost = _once(out / "forgetting.json", lambda: forgetting(run / "run").to_json())
    rows = read_fold(data, "validation")
    return Measured(
        metric,
        goal,
        _facts(read_fold(data, "train"), rows),
        untrained,
        trained,
        curve,
        gains["gain"],
        _off_contract(better, rows),
        _once(out / "closed_book.json", lambda: _closed_book(settings, rows)),
        _grounded(better),
        sum(last) / len(last),
        min(one["answer"] for one in training["evaluations"]),
        lost["lost"],
        lost["after"]["refusals"],
        (planned.seconds or 0.0) / 60,
        planned.estimate.memory.total / GIB,
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB,
    )


def _once(path: Path, find: Callable[[], Any]) -> Any:
    """What a file holds, found and written where it is not there."""
    if not path.exists():
        write_json(path, find())
    return read_json(path)


def _name(shots: int) -> str:
    return f"untrained, {shots} worked examples" if shots else "untrained, prompted"


def _judged(settings: TrainSettings, data: Path, out: Path, metric: str, shots: int) -> Untrained:
    """The untrained model on the validation rows."""

    def answering() -> Answering:
        contract = Contract(abstention_phrase=settings.abstention_phrase)
        drawn = draw_shots(read_fold(data, "train"), shots, contract, settings.seed)
        return load(settings.model, replace(contract, shots=drawn))

    found = judge(read_fold(data, "validation"), out, answering)
    score = intervals(partial(_score, found.raw, metric), found.groups)["score"]
    return Untrained(_name(shots), score, _milliseconds(out))


def _milliseconds(evaluation: Path) -> float:
    return 1000 * float(read_json(evaluation / SECONDS))


def _score(judged: Judged, metric: str, rows: NDArray[np.int64]) -> dict[str, float]:
    return {"score": compute(judged.take(rows))[metric]}


def _gain(before: Judged, after: Judged, metric: str, rows: NDArray[np.int64]) -> dict[str, float]:
    return {"gain": compute(after.take(rows))[metric] - compute(before.take(rows))[metric]}


def _facts(train: list[Row], validation: list[Row]) -> DataFacts:
    natural = [row for row in validation if row.method == "human" and row.sufficient is not None]
    return DataFacts(
        len(train),
        len({row.context for row in train}),
        len({row.document_id for row in train}),
        sum(row.sufficient is False for row in train) / len(train),
        sum(row.method == "human" for row in train) / len(train),
        sum(not row.sufficient for row in natural) / len(natural) if natural else None,
    )


def _off_contract(evaluation: Path, rows: list[Row]) -> float:
    """Share of replies that are neither the phrase nor words as they stand in the context."""
    contexts = {row.id: row.context.casefold() for row in rows}
    told = read_parquet(evaluation / "predictions.parquet")
    columns = (told[name].to_pylist() for name in ("id", "prediction", "abstained"))
    said = [(row, text) for row, text, abstained in zip(*columns, strict=True) if not abstained]
    free = [text for row, text in said if text.strip(" .").casefold() not in contexts[row]]
    return len(free) / max(1, len(told))


def _closed_book(settings: TrainSettings, rows: list[Row]) -> float:
    """How often the untrained model tells the answer to whom gives it no context."""
    loaded = load_model(settings.model, settings.base_bits)
    asked = [row for row in rows if row.sufficient and row.answers][:_CLOSED_BOOK]
    told = 0
    for row in tqdm(asked, desc="without context", unit="question"):
        tokens = reply(loaded, chat(loaded.tokenizer, row.question), _MAX_NEW_TOKENS)
        told += _tells(loaded.tokenizer.decode(tokens, skip_special_tokens=True), row.answers)
    return told / max(1, len(asked))


def _grounded(evaluation: Path) -> float:
    told = read_parquet(evaluation / "predictions.parquet")
    columns = (told[name].to_pylist() for name in ("sufficient", "prediction", "answers"))
    answerable = [(text, gold) for label, text, gold in zip(*columns, strict=True) if label]
    return sum(_tells(text, gold) for text, gold in answerable) / max(1, len(answerable))


def _tells(text: str, answers: Sequence[str]) -> bool:
    """Whether an accepted answer stands in a reply, however long that is."""
    said = f" {normalise(text)} "
    return any(f" {normalise(answer)} " in said for answer in answers)
