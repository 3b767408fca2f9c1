"""`train plan --decide`: is fine-tuning the thing to do? Measured first, then weighed.

What is measured costs about two training runs: the untrained model, prompted and with worked
examples; a learning curve; what the model knows without any context; what training has unlearnt.
Everything is kept in a folder, and done once.
"""

import contextlib
import itertools
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from abstain.answer import Answering
from abstain.answerer import Answerer
from abstain.compare import read_evaluation
from abstain.groups import context_groups, draw_contexts
from abstain.metrics import Judged, compute
from abstain.model import device, load_model
from abstain.prefix import supports_packing
from abstain.run import base_hash, weights_hash
from abstain.shots import draw_shots
from curate.bootstrap import Interval, intervals
from curate.console import interval
from curate.contract import Contract
from curate.errors import UserError
from curate.files import read_json
from curate.record import Row, digest, read_fold, read_parquet, rows_digest
from curate.text import holds_any, normalise
from train import steps
from train.checkpoint import Progress
from train.collate import pack_examples, tokenise
from train.estimate import GIB
from train.forgetting import forgetting
from train.judge import JUDGED, change, judge, labelled
from train.kept import kept
from train.learning_curve import Curve, learning_curve, part_folder
from train.plan import plan
from train.probes import chat, reply
from train.run_folder import TRAINING
from train.settings import TrainSettings

log = logging.getLogger(__name__)

SHOTS = 4
_CLOSED_BOOK = 60  # questions asked without their context
_LEARNT = 100  # train rows whose loss is compared with the validation rows'
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
    unsupported: float  # share of its answers that do not stand in their context
    contradicted: float  # share of its rows that another one labels otherwise: same text, question
    # Of the validation rows that people wrote: the context does not hold the answer.
    context_missing: float | None


@dataclass(frozen=True)
class Asked:
    """A model on the validation rows: as it is, with one kind of prompt, or trained."""

    name: str
    score: Interval
    milliseconds: float  # an answer


@dataclass(frozen=True)
class Measured:
    """Everything that the decision rests on."""

    metric: str
    goal: float | None
    data: DataFacts
    untrained: list[Asked]  # by prompt, the better one first
    trained: Asked  # on all rows
    curve: Curve
    gain: Interval  # of training over the better untrained prompt, on the same rows
    # Of the untrained model's answers: no words of the context, nor the abstention phrase.
    off_contract: float
    # Share of answerable questions whose answer is in the untrained model's reply.
    closed_book: float  # asked without their context
    grounded: float  # with it, by the better prompt
    train_loss: float  # a taught token, of rows learnt; beside the validation rows'
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
    rows = labelled(data, "validation")
    prompts = _prompts(settings, data)  # asked first, since what trains takes hours
    untrained = {name: _judged(settings, rows, out, metric, *of) for name, of in prompts.items()}
    for one in untrained.values():
        _certain(one.score, metric, rows)
    best = max(untrained, key=lambda name: untrained[name].score["value"] or 0.0)
    better = out / "untrained" / best
    planned = plan(settings, data)
    needed, there = planned.estimate.memory.total / GIB, _machine()
    if needed > there:
        raise UserError(
            f"training needs about {needed:.1f} GiB, this machine has {there:.1f}: nothing was "
            f"trained; the untrained model reaches {metric} {interval(untrained[best].score)}\n"
            "  `train plan` shows what takes the memory; --method, --base-bits or a smaller --model"
        )
    curve = learning_curve(data, out / "curve", settings, metric, goal)
    run = part_folder(out / "curve")
    trained = Asked("trained on all rows", curve.scores[-1], _milliseconds(run / "evaluation"))
    before, after = read_evaluation(better), read_evaluation(run / "evaluation")
    gain = change(before, after, [metric])[metric]
    progress = Progress(**read_json(run / "run" / TRAINING)["progress"])
    kept_loss = progress.averaged or progress.best()
    if kept_loss is None:
        raise UserError(f"{run}: was not validated, as it should have been")
    of = weights_hash(run / "run")
    lost = kept(out / "forgetting.json", of, lambda: forgetting(run / "run").to_json())
    asked = _some_answerable(rows, settings.seed)
    named = digest(base_hash(settings.model, settings.base_bits), rows_digest(asked))
    return Measured(
        metric,
        goal,
        _facts(read_fold(data, "train"), rows),
        sorted(untrained.values(), key=lambda one: one is not untrained[best]),
        trained,
        curve,
        gain,
        _off_contract(better, rows),
        kept(out / "closed_book.json", named, lambda: _closed_book(settings, asked)),
        _grounded(better, {row.id for row in asked}),
        _learnt(data, run / "run", settings),
        kept_loss["answer"],
        lost["lost"],
        lost["after"]["refusals"],
        (planned.seconds or 0.0) / 60,
        needed,
        there,
    )


def _machine() -> float:
    """GiB that training may use: of the accelerator, where there is one."""
    if device().type == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory) / GIB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def _prompts(settings: TrainSettings, data: Path) -> dict[str, tuple[str, Contract]]:
    """The prompts that the untrained model is asked with: by folder, their name and contract."""
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    found = {"0": ("untrained, prompted", contract)}
    try:
        shots = draw_shots(read_fold(data, "train"), SHOTS, contract, settings.seed)
    except UserError as error:  # a data set of one kind may be trained on, too
        log.warning("the untrained model is asked without worked examples: %s", error)
        return found
    name = f"untrained, {SHOTS} worked examples"
    return {**found, str(SHOTS): (name, replace(contract, shots=shots))}


def _judged(
    settings: TrainSettings,
    rows: Sequence[Row],
    out: Path,
    metric: str,
    name: str,
    prompt: Contract,
) -> Asked:
    """The untrained model on the validation rows."""

    def answering() -> Answering:
        return Answerer(load_model(settings.model, settings.base_bits), prompt, None)

    folder = out / "untrained" / str(len(prompt.shots))
    of = digest(base_hash(settings.model, settings.base_bits), repr(prompt))
    found = judge(rows, folder, of, answering)
    score = intervals(partial(_score, found.raw, metric), found.groups)["score"]
    return Asked(name, score, _milliseconds(folder))


def _certain(score: Interval, metric: str, rows: Sequence[Row]) -> None:
    """`UserError` where nothing can be said for certain about a metric on these rows."""
    answerable = sum(bool(row.sufficient) for row in rows)
    what = f"{answerable} answerable and {len(rows) - answerable} unanswerable validation rows"
    if score["value"] is None:
        raise UserError(
            f"--goal {metric}: has no value for the untrained model on {what}; take another metric"
        )
    if score["low"] is None:
        raise UserError(
            f"--goal {metric}: has no interval on {what}, from {len(set(context_groups(rows)))} "
            "contexts; a decision needs validation rows from several"
        )


def _milliseconds(evaluation: Path) -> float:
    return 1000 * float(read_json(evaluation / JUDGED)["found"])


def _learnt(data: Path, run: Path, settings: TrainSettings) -> float:
    """The loss a taught token, without dropout, on some of the rows that a run has learnt."""

    def find() -> float:
        loaded = load_model(str(run))
        contract = Contract(abstention_phrase=settings.abstention_phrase)
        contexts = draw_contexts(read_fold(data, "train"), _LEARNT, settings.seed)
        rows = list(itertools.chain.from_iterable(contexts))
        reward = settings.abstain_reward
        examples = tokenise(
            rows, loaded.tokenizer, contract, loaded.end_token_id, "train", reward=reward
        )
        packing = supports_packing(loaded.model) and contract.context_first(loaded.tokenizer)
        packs = pack_examples(examples, settings.max_rows if packing else 1, settings.max_tokens)
        bar = tqdm(packs, desc="what was learnt", unit="pack")
        return steps.evaluate(loaded.model, None, bar, 0.0, contextlib.nullcontext)["answer"]

    return float(kept(run.parent / "learnt.json", weights_hash(run), find))


def _score(judged: Judged, metric: str, rows: NDArray[np.int64]) -> dict[str, float]:
    return {"score": compute(judged.take(rows))[metric]}


def _facts(train: list[Row], validation: list[Row]) -> DataFacts:
    natural = [row for row in validation if row.method == "human" and row.sufficient is not None]
    return DataFacts(
        len(train),
        len({row.context for row in train}),
        len({row.document_id for row in train}),
        sum(row.sufficient is False for row in train) / len(train),
        sum(row.method == "human" for row in train) / len(train),
        _unsupported(train),
        _contradicted(train),
        sum(not row.sufficient for row in natural) / len(natural) if natural else None,
    )


def _unsupported(train: Sequence[Row]) -> float:
    """Labels say that these contexts hold an answer, and it is not there in any of its forms."""
    told = [row for row in train if row.sufficient and row.answers]
    return sum(not holds_any(row.context, row.answers) for row in told) / max(1, len(told))


def _contradicted(train: Sequence[Row]) -> float:
    labels: dict[tuple[str, str], set[bool | None]] = {}
    for row in train:
        labels.setdefault((row.context, normalise(row.question)), set()).add(row.sufficient)
    both = (len(labels[row.context, normalise(row.question)]) > 1 for row in train)
    return sum(both) / len(train)


def _off_contract(evaluation: Path, rows: list[Row]) -> float:
    """Share of replies that are neither the phrase nor words as they stand in the context."""
    contexts = {row.id: row.context.casefold() for row in rows}
    told = read_parquet(evaluation / "predictions.parquet")
    columns = (told[name].to_pylist() for name in ("id", "prediction", "abstained"))
    said = [(row, text) for row, text, abstained in zip(*columns, strict=True) if not abstained]
    free = [text for row, text in said if text.strip(" .").casefold() not in contexts[row]]
    return len(free) / max(1, len(told))


def _some_answerable(rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows that are asked with their context and without."""
    answerable = [row for row in rows if row.sufficient and row.answers]
    return random.Random(seed).sample(answerable, min(_CLOSED_BOOK, len(answerable)))


def _closed_book(settings: TrainSettings, asked: Sequence[Row]) -> float:
    """How often the untrained model tells the answer to whom gives it no context."""
    loaded = load_model(settings.model, settings.base_bits)
    told = 0
    for row in tqdm(asked, desc="without context", unit="question"):
        tokens = reply(loaded, chat(loaded.tokenizer, row.question), _MAX_NEW_TOKENS)
        told += _tells(loaded.tokenizer.decode(tokens, skip_special_tokens=True), row.answers)
    return told / max(1, len(asked))


def _grounded(evaluation: Path, asked: set[str]) -> float:
    """The same of the same rows, with their context."""
    told = read_parquet(evaluation / "predictions.parquet")
    columns = (told[name].to_pylist() for name in ("id", "prediction", "answers"))
    found = [_tells(text, gold) for row, text, gold in zip(*columns, strict=True) if row in asked]
    return sum(found) / max(1, len(found))


def _tells(text: str, answers: Sequence[str]) -> bool:
    """Whether an accepted answer stands in a reply, however long that is."""
    said = f" {normalise(text)} "
    return any(f" {normalise(answer)} " in said for answer in answers)
