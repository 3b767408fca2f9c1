"""Make insufficient rows from sufficient ones until the recipe's share is reached.

It must see a whole fold, and never looks beyond it: parents, passages to borrow and the rows
made all lie in the same one.
"""

import collections
import functools
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from curate import near_duplicates
from curate.chat import Chat
from curate.dedup import Key, context_id, key
from curate.insufficient import distracted, noise_passages, verify
from curate.insufficient.made import Made, World
from curate.insufficient.methods import MAKERS, NEEDS, READERS, WRITERS, usable
from curate.insufficient.neighbourhoods import Neighbourhood, neighbourhoods
from curate.insufficient.parts import Part, again, parts_of
from curate.insufficient.passages import build_index
from curate.insufficient.readers import Panel, chat_of, panel_of
from curate.recipe import InsufficientSettings
from curate.record import Dropped, Passage, Row
from curate.workers import mapping

STEP = "insufficient"
DISAGREEMENT = "verifiers_disagree"
_AT_ONCE = 8  # requests under way, where models are asked


@dataclass
class Derived:
    """The rows that were made, the candidates that failed, and where there were none."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    unmade: Counter[str] = field(default_factory=Counter)  # method → parents it found nothing in
    tried: Counter[str] = field(default_factory=Counter)  # method → parents it was tried on


def doubtful(dropped: Iterable[Dropped]) -> list[Row]:
    """Rows on which the verifiers disagree with the label, without one: for people to label."""
    return [
        replace(one.row, sufficient=None, reason="").stamped()
        for one in dropped
        if one.drop_reason == DISAGREEMENT
    ]


def derive(
    rows: list[Row],
    passages: list[Passage],
    settings: InsufficientSettings,
    seed: int,
    workers: int = 1,
) -> Derived:
    """Derive within each fold; natural insufficient rows count towards the share and all stay.

    Neighbourhoods are shared out among ``workers`` processes, unless models are asked: those are
    waited for, and not computed. The result hangs on neither.
    """
    methods = usable(settings)
    panel = panel_of(settings.verify)
    asks = panel.asks or bool(panel.files) or any(m in WRITERS or m in READERS for m in methods)
    readers = settings.verify.readers
    writer = chat_of(settings.writer) if asks and settings.writer is not None else None
    reader = chat_of(readers[0]) if asks and readers else None
    work = functools.partial(_derive_part, settings, methods, panel, seed, writer, reader)
    result, known = Derived(), _Known.of(rows, passages)
    todo = parts = parts_of(neighbourhoods(rows, passages), settings.share, methods)
    missing = Counter[str]()
    for part in parts:
        missing[part.place.fold] += part.quota
    alone = asks or workers < 2
    with (
        tqdm(total=missing.total(), desc="derive", unit="row") as bar,
        mapping(1 if alone else workers) as run,
    ):
        if alone:  # in this process each row is told as it is made
            work = functools.partial(work, tell=bar.update)
        while todo:
            for part, made in zip(todo, run(work, todo), strict=True):
                added = _merge(made, result, known)
                missing[part.place.fold] -= added
                bar.update(0 if alone else added)
                part.went(made.rows, made.tried)
            todo = again(parts, missing)
    _drop_near_duplicates(result, rows, passages)
    return result


def _merge(made: Derived, result: Derived, known: "_Known") -> int:
    """Take a part's rows over; how many insufficient ones. Two parts may have made the same."""
    added = 0
    for row in made.rows:
        row.context_id = known.clusters.get(row.context, row.context_id)
        if objection := known.objection(row):
            made.dropped.append(Dropped(row, STEP, *objection))
        else:
            known.add(row)
            result.rows.append(row)
            added += not row.sufficient
    result.dropped += made.dropped
    result.unmade += made.unmade
    return added


def _derive_part(
    settings: InsufficientSettings,
    methods: list[str],
    panel: Panel,
    seed: int,
    writer: Chat | None,
    reader: Chat | None,
    part: Part,
    tell: Callable[[], object] = lambda: None,
) -> Derived:
    """What is asked of one neighbourhood; ``tell`` is called for each row."""
    result = Derived()
    if not part.quota:
        return result
    place = part.place
    world = replace(world_of(place, settings, seed), writer=writer, reader=reader)
    borrowed = [Passage(one.context, one.document, one.cluster, place.fold) for one in place.texts]
    known = _Known.of([*place.rows, *part.rows], borrowed)
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        making = _Making(world, methods, settings, panel, known, result, pool)
        _take_turns(part, making, tell)
    finally:
        pool.shutdown(cancel_futures=True)  # what was asked ahead and is not wanted any more
    return result


def _drop_near_duplicates(
    result: Derived, rows: Sequence[Row], passages: Sequence[Passage]
) -> None:
    """Drop what became nearly the same as a context of another fold once a part was cut.

    Two pages of one footer, say, of which each lost its own paragraph.
    """
    items: list[Row | Passage] = [*passages, *rows]
    homes = {item.context: item.fold for item in items}
    made = {row.context: row.fold for row in result.rows if row.context not in homes}
    contexts = sorted(homes | made)
    folds = homes | made
    leaking = {
        context
        for one, other in near_duplicates.joins(contexts, [folds[context] for context in contexts])
        for context in (contexts[one], contexts[other])
        if context in made
    }
    if leaking:
        detail = "nearly the same context is in another fold"
        gone = [row for row in result.rows if row.context in leaking]
        result.dropped += [Dropped(row, STEP, "context_in_other_fold", detail) for row in gone]
        result.rows = [row for row in result.rows if row.context not in leaking]


def world_of(place: Neighbourhood, settings: InsufficientSettings, seed: int) -> World:
    """What methods that ask no model may use on one neighbourhood's rows."""
    index = build_index(place.texts)
    return World(index, seed, settings.passages, settings.swap_from, settings.swap_rank)


@dataclass
class _Known:
    """What a new row must not repeat, contradict, or carry over into another fold."""

    rows: dict[Key, Row]
    homes: dict[str, str]  # context cluster → fold
    clusters: dict[str, str]  # context → its cluster

    @classmethod
    def of(cls, rows: list[Row], passages: list[Passage]) -> "_Known":
        items: list[Row | Passage] = [*passages, *rows]
        homes = {item.context_id: item.fold for item in items}
        clusters = {item.context: item.context_id for item in items}
        return cls({key(row): row for row in rows}, homes, clusters)

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


def _take_turns(part: Part, making: "_Making", tell: Callable[[], object]) -> None:
    """Each method makes a row in its turn, and so an equal part as long as it can make any."""
    parents = sorted((row for row in part.place.rows if row.sufficient), key=lambda row: row.id)
    methods = [name for name in making.methods if name != distracted.METHOD]
    first = part.turn % max(1, len(methods))
    attempts = {}
    for method in methods[first:] + methods[:first]:
        members = [row for row in parents if method not in NEEDS or NEEDS[method](row)]
        random.Random(f"{making.world.seed}/{method}/{part.place.fold}").shuffle(members)
        attempts[method] = making.attempts(members[part.tried[method] :], method)
    missing = part.quota
    while missing and attempts:
        for method in list(attempts):
            if not making.next(attempts[method], method):
                del attempts[method]
                continue
            missing -= 1
            tell()
            if not missing:
                break


Attempt = tuple[Row, Row | Dropped | None]  # the parent, and what came of it


@dataclass
class _Making:
    """One neighbourhood's rows in the making."""

    world: World
    methods: list[str]
    settings: InsufficientSettings
    panel: Panel
    known: _Known
    result: Derived
    pool: ThreadPoolExecutor

    def attempts(self, parents: Sequence[Row], method: str) -> Iterator[Attempt]:
        """One attempt a parent, made when it is asked for; some ahead, where models are waited for.

        Their order is the parents' own in either case.
        """
        if not (self.panel.asks or method in WRITERS or method in READERS):
            for parent in parents:
                yield parent, self._attempt(parent, method)
            return
        waiting = iter(parents)
        under_way = collections.deque(
            (parent, self.pool.submit(self._attempt, parent, method))
            for parent in itertools.islice(waiting, _AT_ONCE)
        )
        while under_way:
            parent, future = under_way.popleft()
            yield parent, future.result()
            for another in itertools.islice(waiting, 1):
                under_way.append((another, self.pool.submit(self._attempt, another, method)))

    def next(self, attempts: Iterator[Attempt], method: str) -> bool:
        """Add the next row that passes, failures on the way dropped; False where none is left."""
        for parent, attempt in attempts:
            self.result.tried[method] += 1
            if self._add(attempt, method):
                if method == noise_passages.METHOD and distracted.METHOD in self.methods:
                    self._add(self._attempt(parent, distracted.METHOD), distracted.METHOD)
                return True
        return False

    def _attempt(self, parent: Row, method: str) -> Row | Dropped | None:
        """What a method makes of a parent, if anything; nothing else is touched."""
        made = MAKERS[method](parent, self.world)
        if made is None:
            return None
        row = child(parent, method, made, self.world)
        row.context_id = self.known.clusters.get(row.context, row.context_id)
        if against := verify.vote(row, parent, self.settings.verify.decide, self.panel):
            detail = f"{', '.join(against)}: {'; '.join(parent.answers)}"
            return Dropped(row, STEP, DISAGREEMENT, detail[:200])
        return row

    def _add(self, attempt: Row | Dropped | None, method: str) -> bool:
        """Take a row in, unless something is known against it."""
        if attempt is None:
            self.result.unmade[method] += 1
            return False
        if isinstance(attempt, Row) and (objection := self.known.objection(attempt)):
            attempt = Dropped(attempt, STEP, *objection)
        if isinstance(attempt, Dropped):
            self.result.dropped.append(attempt)
            return False
        self.known.add(attempt)
        self.result.rows.append(attempt)
        return True


def child(parent: Row, method: str, made: Made, world: World) -> Row:
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
        title=parent.title,
        heading=parent.heading,
        licence=_licence([parent.licence, *(world.index.licences[c] for c in made.borrowed)]),
        language=parent.language,
        retrieved_at=parent.retrieved_at,
        published_at=parent.published_at,
    ).stamped()


def _licence(licences: Sequence[str]) -> str:
    """All of them, as an SPDX expression; unknown where one is."""
    if len(set(licences)) == 1 or not all(licences):
        return licences[0] if all(licences) else ""
    parts = {part for one in licences for part in one.split(" AND ")}
    return " AND ".join(sorted(f"({part})" if " OR " in part else part for part in parts))
