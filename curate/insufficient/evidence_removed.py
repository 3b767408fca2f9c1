"""`evidence_removed`: the sentences that hold an accepted answer are cut from the context."""

from curate.insufficient.evidence import is_evidence, sentences
from curate.insufficient.made import Made, World
from curate.record import Row

METHOD, REASON = "evidence_removed", "evidence_missing"


def make(row: Row, _: World) -> Made | None:
    """The context without its evidence; the intensity is the share of it that was cut.

    None where nothing would be left, and where no evidence was found: an answer that is no span
    ("yes") rests on sentences that nobody has marked.
    """
    kept = [
        row.context[start:end]
        for start, end in sentences(row.context)
        if not is_evidence(row, start, end)
    ]
    context = "".join(kept).strip()
    if not context or len(context) == len(row.context.strip()):
        return None
    return Made(REASON, 1 - len(context) / len(row.context), context)
