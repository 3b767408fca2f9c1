"""`antonym`: one word of the question gives way to its opposite (SQuAD 2.0's "antonym")."""

import re

from curate.insufficient.made import Made, World
from curate.insufficient.question_edits import first_that_fits
from curate.record import Row
from curate.text import asking_word

METHOD, REASON = "antonym", "false_premise"
_PAIRS = """
first last; largest smallest; biggest smallest; highest lowest; longest shortest; oldest youngest
best worst; most least; more fewer; greater lesser; higher lower; larger smaller; longer shorter
older newer; earlier later; before after; earliest latest; oldest newest; strongest weakest
north south; northern southern; east west; eastern western; upper lower; inner outer; left right
won lost; win lose; winning losing; winner loser; increase decrease; increased decreased
increasing decreasing; rise fall; rose fell; rising falling; gain lose; gained lost; grow shrink
grew shrank; growing shrinking; begin end; began ended; beginning ending; start stop
started stopped; open close; opened closed; enter leave; entered left; arrive depart
arrived departed; buy sell; bought sold; import export; imported exported; imports exports
accept reject; accepted rejected; allow forbid; allowed forbidden; support oppose
supported opposed; supporters opponents; agree disagree; agreed disagreed; include exclude
included excluded; including excluding; create destroy; created destroyed; build demolish
built demolished; join leave; joined left; attack defend; attacked defended; attacking defending
love hate; loved hated; like dislike; liked disliked; succeed fail; succeeded failed
success failure; successful unsuccessful; advantage disadvantage; advantages disadvantages
strength weakness; strengths weaknesses; benefit drawback; benefits drawbacks; improve worsen
improved worsened; strengthen weaken; strengthened weakened; raise lower
raised lowered; expand contract; expanded contracted
major minor; majority minority; maximum minimum; public private; internal external; legal illegal
rich poor; high low; strong weak; old new; young old; early late; hot cold; fast slow; hard easy
difficult easy; heavy light; deep shallow; wide narrow; thick thin; dry wet; safe dangerous
common rare; popular unpopular; ancient modern; positive negative; direct indirect; formal informal
possible impossible; able unable; dependent independent
ally enemy; allies enemies; friend enemy; friends enemies; victory defeat; victories defeats
birth death; born died; alive dead; male female; men women; man woman; boys girls; king queen
father mother; son daughter; sons daughters; brother sister; husband wife; parent child
parents children; teacher student; teachers students; buyer seller; employer employee
top bottom; front back; above below; inside outside; day night; summer winter; spring autumn
morning evening; past future; peace war; offensive defensive; conservative liberal; urban rural
rural urban; presence absence; present absent; permanent temporary; voluntary compulsory
"""


def _opposites() -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in _PAIRS.replace("\n", ";").split(";"):
        if pair.strip():
            one, other = pair.split()
            found.setdefault(one, other)
            found.setdefault(other, one)
    return found


OPPOSITES = _opposites()
_WORD = re.compile(r"[A-Za-z]+")


def make(row: Row, world: World) -> Made | None:
    """One word replaced, seeded where several could be; intensity 1. None where none has one."""
    if not asking_word(row.question):
        return None
    # "New" in "New York" is no word to turn round.
    found = [m for m in _WORD.finditer(row.question) if m.group() in OPPOSITES]
    world.random(METHOD, row).shuffle(found)
    edits = []
    for match in found:
        other = OPPOSITES[match.group()]
        edits.append((other, row.question[: match.start()] + other + row.question[match.end() :]))
    edited = first_that_fits(row.context, edits, row.question)
    return Made(REASON, 1.0, question=edited) if edited is not None else None
