"""Make insufficient rows from sufficient ones until the recipe's share is reached.

It must see a whole fold, and never looks beyond it: parents, passages to borrow and the rows
made all lie in the same one.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from curate.dedup import Key, context_id, key
from curate.insufficient import distracted, noise_passages, verify
from curate.insufficient.made import Made, Maker, World
from curate.insufficient.methods import MAKERS
from curate.insufficient.passages import build_index
from curate.recipe import InsufficientSettings
from curate.record import FOLDS, Dropped, Passage, Row

STEP = "insufficient"


@dataclass
class Derived:
    """The rows that were made, and the candidates that failed."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


def derive(
    rows: list[Row], passages: list[Passage], settings: InsufficientSettings, seed: int
) -> Derived:
    """Derive within each fold; natural insufficient rows count towards the share and all stay."""
    result = Derived()
    known = _Known.of(rows, passages)
    by_fold: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_fold[row.fold].append(row)
    for fold in (f for f in FOLDS if f in by_fold):
        texts = [(row.context, row.document_id, row.context_id) for row in by_fold[fold]]
        texts += [(p.context, p.document_id, p.context_id) for p in passages if p.fold == fold]
        _derive_fold(by_fold[fold], texts, settings, seed, known, result)
    return result


@dataclass
class _Known:
    """What a new row must not repeat, contradict, or carry over into another fold."""

    rows: dict[Key, Row]
    homes: dict[str, str]  # context cluster → fold

    @classmethod
    def of(cls, rows: list[Row], passages: list[Passage]) -> "_Known":
        homes = {passage.context_id: passage.fold for passage in passages}
        homes |= {row.context_id: row.fold for row in rows}
        return cls({key(row): row for row in rows}, homes)

    def objection(self, row: Row) -> tuple[str, str] | None:
        """The reason why ``row`` cannot be added, and what it turns on."""
        home = self.homes.get(row.context_id, row.fold)
        if row.context_id and home != row.fold:
            return "context_in_other_fold", f"the same context came about in {home}"
        if twin := self.rows.get(key(row)):
            same = twin.sufficient == row.sufficient
            reason = "exact_duplicate" if same else "contradictory_labels"
            return reason, f"the same question and context as {twin.id}"
        return None

    def add(self, row: Row) -> None:
        self.rows[key(row)] = row
        self.homes.setdefault(row.context_id, row.fold)


def wanted(rows: Iterable[Row], share: float, methods: Sequence[str] = ()) -> int:
    """How many insufficient rows are missing from ``share`` of the labelled rows.

    Where `noise_passages` brings sufficient twins along, they count too: with n methods in turns,
    every n-th row has one.
    """
    labels = [row.sufficient for row in rows if row.sufficient is not None]
    odds = share / (1 - share)
    missing = odds * sum(labels) - labels.count(False)
    if {noise_passages.METHOD, distracted.METHOD} <= set(methods):
        making = len(methods) - 1
        missing /= max(1 - odds / making, 0.1)
    return max(0, round(missing))


def _derive_fold(
    rows: list[Row],
    texts: list[tuple[str, str, str]],
    settings: InsufficientSettings,
    seed: int,
    known: _Known,
    result: Derived,
) -> None:
    missing = wanted(rows, settings.share, settings.methods)
    methods = [method for method in settings.methods if method != distracted.METHOD]
    if not missing or not methods:
        return
    world = World(
        build_index(sorted(texts)), seed, settings.passages, settings.swap_from, settings.swap_rank
    )
    parents = sorted((row for row in rows if row.sufficient), key=lambda row: row.id)
    queues = {}
    for method in methods:
        queues[method] = list(parents)
        random.Random(f"{seed}/{method}/{rows[0].fold}").shuffle(queues[method])
    maker = _Making(world, settings, known, result)
    with tqdm(total=missing, desc=f"derive {rows[0].fold}", unit="row", leave=False) as bar:
        # Methods take turns, so that each makes an equal part as long as it can make any.
        while missing and queues:
            for method in list(queues):
                row = maker.next(queues[method], method)
                if row is None:
                    del queues[method]
                    continue
                missing -= 1
                bar.update()
                if not missing:
                    break


@dataclass
class _Making:
    """One fold's rows in the making."""

    world: World
    settings: InsufficientSettings
    known: _Known
    result: Derived

    def next(self, queue: list[Row], method: str) -> Row | None:
        """The next parent's row that passes the checks; failures on the way are dropped."""
        while queue:
            parent = queue.pop()
            row = self._try(parent, method, MAKERS[method])
            if row is not None:
                if method == noise_passages.METHOD and distracted.METHOD in self.settings.methods:
                    self._try(parent, distracted.METHOD, distracted.make)
                return row
        return None

    def _try(self, parent: Row, method: str, make: Maker) -> Row | None:
        made = make(parent, self.world)
        if made is None:
            failed = child(parent, method, Made("no_context", 0.0, ""))
            self._drop(failed, "no_candidate", f"by {method}")
            return None
        row = verify.vote(child(parent, method, made), parent)
        if against := verify.disagreeing(row, self.settings.verify.decide):
            detail = f"{', '.join(against)}: {'; '.join(parent.answers)}"
            self._drop(row, "verifiers_disagree", detail[:200])
        elif objection := self.known.objection(row):
            self._drop(row, *objection)
        else:
            self.known.add(row)
            self.result.rows.append(row)
            return row
        return None

    def _drop(self, row: Row, reason: str, detail: str) -> None:
        self.result.dropped.append(Dropped(row, STEP, reason, detail))


def child(parent: Row, method: str, made: Made) -> Row:
    """The row that a method makes of its parent."""
    context = parent.context if made.context is None else made.context
    return Row(
        question=parent.question if made.question is None else made.question,
        context=context,
        history=parent.history,
        answers=[answer for answer, _ in made.answers],
        answer_starts=[start for _, start in made.answers],
        sufficient=made.sufficient,
        reason=made.reason,
        method=method,
        intensity=round(made.intensity, 6),
        parent_id=parent.id,
        document_id=parent.document_id,
        context_id=context_id(context),
        fold=parent.fold,
        source=parent.source,
        source_id=parent.source_id,
        url=parent.url,
        licence=parent.licence,
        language=parent.language,
        retrieved_at=parent.retrieved_at,
    ).stamped()
