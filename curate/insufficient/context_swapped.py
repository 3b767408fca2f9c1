"""`context_swapped`: a passage near the question, by BM25, that holds no accepted answer.

Hard negatives as for dense retrieval (Karpukhin et al. 2020): from the same document they are the
hardest, from others the ones a retriever errs with.
"""

from curate.insufficient.made import Made, World
from curate.record import Row
from curate.text import holds_any

METHOD, REASON = "context_swapped", "irrelevant_context"


def make(row: Row, world: World) -> Made | None:
    """The passage at the rank asked for; its intensity is 1 / rank: the nearer, the harder."""
    for rank, context in enumerate(world.index.others(row, world.swap_from), 1):
        if rank >= world.swap_rank and not holds_any(context, row.answers):
            return Made(REASON, 1 / rank, context, borrowed=[context])
    return None
