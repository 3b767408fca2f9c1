"""Measured label error: a sample of each method is judged by people, and its precision told.

That an answer's words are absent is a weak label (80.9 % accurate against 115 human ones; Joren et
al. 2025). What a method's labels are worth is known once someone has read some of them.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from curate.errors import UserError
from curate.files import parse_json, read_text
from curate.record import Row

FILE = "judgements.jsonl"
Verdict = Literal["right", "wrong", "unsure"]


@dataclass(frozen=True)
class Judgement:
    """What a person says of one row's label."""

    id: str
    content_hash: str  # of what was judged: a corrected row is judged anew
    method: str
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Precision:
    """How many labels of a method are right, with Wilson's interval (1927) at 95 %."""

    method: str
    judged: int
    right: int
    unsure: int
    low: float | None
    high: float | None

    @property
    def value(self) -> float | None:
        """Right of those that could be judged."""
        return self.right / self.judged if self.judged else None

    def to_json(self) -> dict[str, Any]:
        """For a program, and for the card."""
        return {**asdict(self), "value": self.value}


def sample(rows: Iterable[Row], count: int, seed: int) -> list[Row]:
    """``count`` rows of each method, drawn by seed; of a method with fewer, all."""
    by_method: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_method[kind(row)].append(row)
    drawn: list[Row] = []
    for method, members in sorted(by_method.items()):
        members.sort(key=lambda row: row.id)
        random.Random(f"{seed}/{method}").shuffle(members)
        drawn += members[:count]
    return drawn


def read(path: Path) -> list[Judgement]:
    """The judgements made so far; the last one of a row counts."""
    if not path.exists():
        return []
    found: dict[str, Judgement] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                judgement = Judgement(**parse_json(line))
                if judgement.verdict not in get_args(Verdict):
                    raise TypeError(f"verdict '{judgement.verdict}'")
            except (TypeError, json.JSONDecodeError) as error:
                raise UserError(f"{path}: line {number}: not a judgement ({error})") from error
            found[judgement.id] = judgement
    return list(found.values())


def of(folder: Path, splits: Mapping[str, Iterable[Row]]) -> list[Judgement]:
    """The judgements kept in a data-set folder that are about rows as they are now."""
    current = {row.id: row.content_hash for rows in splits.values() for row in rows}
    judged = read(folder / FILE)
    return [one for one in judged if current.get(one.id) == one.content_hash]


def append(path: Path, judgement: Judgement) -> None:
    """Keep one judgement, at once: an interrupted session loses none."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(judgement), ensure_ascii=False) + "\n")


def todo(drawn: Sequence[Row], judged: Iterable[Judgement]) -> list[Row]:
    """The drawn rows that nobody has judged as they are now."""
    known = {(judgement.id, judgement.content_hash) for judgement in judged}
    return [row for row in drawn if (row.id, row.content_hash) not in known]


Opinion = Literal["yes", "no", "unsure"]  # does the context answer the question?


def judge(rows: Sequence[Row], path: Path, ask: Callable[[Row], Opinion | None]) -> int:
    """Have each row judged by ``ask`` until it says None; returns how many were.

    Whoever is asked need not know the label: it is right where the opinion agrees with it.
    """
    for number, row in enumerate(rows):
        opinion = ask(row)
        if opinion is None:
            return number
        append(path, Judgement(row.id, row.content_hash, kind(row), verdict(row, opinion)))
    return len(rows)


def verdict(row: Row, opinion: Opinion) -> Verdict:
    """What an opinion says of a row's label."""
    if opinion == "unsure":
        return "unsure"
    return "right" if (opinion == "yes") == row.sufficient else "wrong"


def kind(row: Row) -> str:
    """The method, and for people's own rows the label too."""
    if row.method != "human":
        return row.method
    return "human, sufficient" if row.sufficient else "human, insufficient"


def precision(judged: Iterable[Judgement]) -> list[Precision]:
    """Of each method; what nobody could tell counts neither way."""
    from scipy.stats import binomtest

    by_method: dict[str, list[Verdict]] = defaultdict(list)
    for judgement in judged:
        by_method[judgement.method].append(judgement.verdict)
    result = []
    for method, verdicts in sorted(by_method.items()):
        right, unsure = verdicts.count("right"), verdicts.count("unsure")
        known = len(verdicts) - unsure
        low = high = None
        if known:
            interval = binomtest(right, known).proportion_ci(0.95, method="wilson")
            low, high = float(interval.low), float(interval.high)
        result.append(Precision(method, known, right, unsure, low, high))
    return result
