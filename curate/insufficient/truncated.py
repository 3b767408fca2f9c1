"""`truncated`: the context ends, or begins, where a window or a chunk would have cut it."""

from curate.insufficient.evidence import is_evidence, sentences
from curate.insufficient.made import Made, World
from curate.record import Row

METHOD, REASON = "truncated", "evidence_missing"


def make(row: Row, _: World) -> Made | None:
    """What stands before the first sentence of evidence or behind the last, whichever is longer.

    The intensity is the share that was cut; None where nothing would be left or nothing was found.
    """
    tiles = sentences(row.context)
    evidence = [number for number, tile in enumerate(tiles) if is_evidence(row, *tile)]
    if not evidence:
        return None
    before = row.context[: tiles[evidence[0]][0]].strip()
    behind = row.context[tiles[evidence[-1]][1] :].strip()
    context = max(before, behind, key=len)
    return Made(REASON, 1 - len(context) / len(row.context), context) if context else None
