"""`number_swapped`: a year, date, amount or number in the question gives way to another.

One that stands in the same context comes first; where there is none, one near by is made up.
"""

import re

from curate.insufficient import entity_swapped
from curate.insufficient.made import Made, World
from curate.insufficient.mentions import mentions
from curate.insufficient.question_edits import first_that_fits
from curate.record import Row
from curate.text import asking_word

METHOD, REASON = "number_swapped", "false_premise"
KINDS = ("year", "date", "money", "percent", "number")
# Numbers are told beside little else: "the directive of 1996" is all that there is to say of it.
SUPPORTED = 0.25
# What holds before 2000 may hold before 2013, and a formula has the same order with another term.
_COMPARED = re.compile(
    r"\b(?:before|after|prior|since|until|than|over|under|least|most|between|by|during)\b|[=+^*/]",
    re.IGNORECASE,
)


def make(row: Row, world: World) -> Made | None:
    """Intensity as for names; 0.75 for a year or number that was made up."""
    if _COMPARED.search(row.question):
        return None
    return entity_swapped.swap(row, world, METHOD, KINDS, SUPPORTED) or _made_up(row, world)


def _made_up(row: Row, world: World) -> Made | None:
    if not asking_word(row.question):
        return None
    random = world.random(METHOD, row)
    edits = []
    for mention in mentions(row.question):
        if mention.kind in ("year", "number") and mention.text.isdigit():
            value = int(mention.text)
            step = (
                random.randint(2, 9)
                if mention.kind == "year"
                else random.randint(1, 2 + value // 4)
            )
            other = str(value + step)
            edited = row.question[: mention.start] + other + row.question[mention.end :]
            if other not in row.context:
                edits.append((other, edited))
    found = first_that_fits(row.context, edits, row.question)
    return Made(REASON, 0.75, question=found) if found is not None else None
