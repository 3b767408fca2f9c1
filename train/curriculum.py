"""What is taught how strongly, by what the untrained model can do already.

Teaching a model answers that it does not find itself teaches it to answer without knowing; R-Tuning
(Zhang et al. 2024, "R-Tuning: Instructing Large Language Models to Say 'I Don't Know'") therefore
asks it first. Here the labels stay what they are, since the context decides, and the rows' weights
follow: an answer that the untrained model does not find counts less, and a question that it
answers without a context that suffices counts more. What the sufficiency head learns is whether the
context suffices, whatever the model can do with it: there, rows count as before.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from abstain.answerer import Answerer
from abstain.calibration import RIGHT_F1
from abstain.metrics import is_right
from abstain.model import LoadedModel
from abstain.predict import answer_all
from abstain.run import base_hash
from curate.contract import Contract
from curate.record import Row, digest, rows_digest
from train.collate import Example
from train.kept import kept
from train.settings import TrainSettings

log = logging.getLogger(__name__)

ASKED = "asked.json"  # what the untrained model got right, kept so that a resumed run asks nothing
_FEW = 0.1  # share of answers found, below which the method has nothing to go by


def refusal_aware(
    packs: Sequence[list[Example]],
    rows: Sequence[Row],
    loaded: LoadedModel,
    settings: TrainSettings,
    out: Path,
) -> list[list[Example]]:
    """The same packs, their examples weighted by what the untrained model does with their rows."""
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    right = asked(rows, loaded, contract, out / ASKED, settings.base_bits)
    share = settings.refusal_aware
    answerable = [right[row.id] for row in rows if row.sufficient]
    if sum(answerable) < _FEW * len(answerable):
        log.warning(
            "the untrained model finds %d of %d answers: nearly all lose weight, and --refusal-"
            "aware teaches to decline whatever the context says; train without it first",
            sum(answerable),
            len(answerable),
        )

    def weighted(example: Example) -> Example:
        if right[example.row_id]:
            return example
        factor = 1 - share if example.sufficient else 1 + share
        return replace(example, answer_weight=factor)

    return [[weighted(example) for example in pack] for pack in packs]


def asked(
    rows: Sequence[Row],
    loaded: LoadedModel,
    contract: Contract,
    stored: Path,
    bits: int | None = None,
) -> dict[str, bool]:
    """Whether the model, as it is, answers each row rightly or rightly declines; by row id."""

    def ask() -> dict[str, bool]:
        answers = answer_all(Answerer(loaded, contract, None), rows, "ask the untrained model")
        return {
            row.id: not answer.abstained and is_right(answer.text, row.answers, RIGHT_F1)
            if row.sufficient
            else answer.abstained
            for row, answer in zip(rows, answers, strict=True)
        }

    of = digest(base_hash(loaded.base, bits), repr(contract), rows_digest(rows))
    right: dict[str, bool] = kept(stored, of, ask)
    return right
