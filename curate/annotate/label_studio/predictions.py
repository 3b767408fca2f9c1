"""What is known of a row before people look: a guess with a score, for the page to show or hide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.annotate.label_studio import config
from curate.errors import UserError
from curate.generate.checks import span_of
from curate.record import NOT_A_SPAN, REASONS, Row, read_parquet

VOTES = "votes"
_PEOPLE = "worker:"
Prediction = dict[str, Any]


@dataclass(frozen=True)
class Guess:
    """A trained run's answer to a row: its text ("" where it abstained) and P(sufficient)."""

    question: str
    answer: str
    p_sufficient: float
    reason: str


def read_run(path: Path) -> dict[str, Guess]:
    """A run's answers by row, of the ``predictions.parquet`` of `abstain evaluate`."""
    if path.is_dir():
        path = path / "predictions.parquet"
    table = read_parquet(path)
    names = ("id", "question", "prediction", "p_sufficient", "predicted_reason")
    for name in names:
        if name not in table.column_names:
            raise UserError(f"{path}: no column '{name}'; `abstain evaluate` writes such a file")
    columns = (table.column(name).to_pylist() for name in names)
    return {number: Guess(*said) for number, *said in zip(*columns, strict=True)}


def votes_of(row: Row) -> list[float]:
    """The verifiers' votes that the context suffices; people's are not among them."""
    return [vote for name, vote in row.votes.items() if not name.startswith(_PEOPLE)]


def probability(row: Row, run: Mapping[str, Guess]) -> float | None:
    """P(sufficient) of a row: the run's, else the mean of the votes, else None."""
    guess = run.get(row.id)
    if guess is not None and guess.question == row.question:
        return guess.p_sufficient
    votes = votes_of(row)
    return sum(votes) / len(votes) if votes else None


def of_votes(row: Row) -> Prediction | None:
    """What verifiers think; without votes the row's own label, without a score."""
    votes = votes_of(row)
    if not votes and row.sufficient is None:
        return None
    p = sum(votes) / len(votes) if votes else float(bool(row.sufficient))
    answers = list(zip(row.answers, row.answer_starts, strict=True))[:1]
    return _prediction(VOTES, p >= 0.5, answers, row.reason, p if votes else None)


def of_run(name: str, run: Mapping[str, Guess]) -> Callable[[Row], Prediction | None]:
    """What a run answered, for rows that are as they were then."""

    def guess(row: Row) -> Prediction | None:
        said = run.get(row.id)
        if said is None or said.question != row.question:
            return None
        answers = [span_of(row.context, said.answer) or (said.answer, NOT_A_SPAN)]
        return _prediction(name, bool(said.answer), answers, said.reason, said.p_sufficient)

    return guess


def _prediction(
    name: str, sufficient: bool, answers: list[tuple[str, int]], reason: str, p: float | None
) -> Prediction:
    result = [chosen(config.SUFFICIENT, config.YES if sufficient else config.NO)]
    if sufficient:
        result += [answered(*span) for span in answers if span[0]]
    elif reason in REASONS and reason != "unlabelled":
        result.append(chosen(config.REASON, reason))
    found: Prediction = {"model_version": name, "result": result}
    return found if p is None else found | {"score": p if sufficient else 1 - p}


def chosen(name: str, value: str) -> dict[str, Any]:
    """A choice of the page, as results have it."""
    return {
        "id": name,
        "from_name": name,
        "to_name": config.PASSAGE,
        "type": "choices",
        "value": {"choices": [value]},
    }


def answered(text: str, start: int) -> dict[str, Any]:
    """An answer, as results have it: a span of the passage, or own words."""
    if start == NOT_A_SPAN:
        value: dict[str, Any] = {"text": [text]}
        name, kind = config.CORRECTED, "textarea"
    else:
        value = {"start": start, "end": start + len(text), "text": text}
        value["labels"] = [config.ANSWER_LABEL]
        name, kind = config.ANSWER, "labels"
    number = f"{name}-{start}"
    return {
        "id": number,
        "from_name": name,
        "to_name": config.PASSAGE,
        "type": kind,
        "value": value,
    }
