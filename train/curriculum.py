"""What is taught how strongly, by what the untrained model can do already.

Teaching a model answers that it does not find itself teaches it to answer without knowing; R-Tuning
(Zhang et al. 2024, "R-Tuning: Instructing Large Language Models to Say 'I Don't Know'") therefore
asks it first. Here the labels stay what they are, since the context decides, and the rows' weights
follow: an answer that the untrained model does not find counts less, and a question that it
answers without a context that suffices counts more.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from abstain.answerer import Answerer
from abstain.calibration import RIGHT_F1
from abstain.metrics import is_right
from abstain.model import LoadedModel
from abstain.predict import answer_all
from curate.contract import Contract
from curate.files import read_json, write_json
from curate.record import Row, digest
from train.collate import Example
from train.settings import TrainSettings

ASKED = "asked.json"  # what the untrained model got right, kept so that a resumed run asks nothing


def refusal_aware(
    packs: Sequence[list[Example]],
    rows: Sequence[Row],
    loaded: LoadedModel,
    settings: TrainSettings,
    out: Path,
) -> list[list[Example]]:
    """The same packs, their examples weighted by what the untrained model does with their rows."""
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    right = asked(rows, loaded, contract, out / ASKED)
    share = settings.refusal_aware

    def weighted(example: Example) -> Example:
        if right[example.row_id]:
            return example
        factor = 1 - share if example.sufficient else 1 + share
        return replace(example, weight=example.weight * factor)

    return [[weighted(example) for example in pack] for pack in packs]


def asked(
    rows: Sequence[Row], loaded: LoadedModel, contract: Contract, stored: Path
) -> dict[str, bool]:
    """Whether the model, as it is, answers each row rightly or rightly declines; by row id."""
    of = digest(loaded.base, repr(contract), *(row.id + row.content_hash for row in rows))
    if stored.exists() and (found := read_json(stored))["of"] == of:
        right: dict[str, bool] = found["right"]
        return right
    answers = answer_all(Answerer(loaded, contract, None), rows, "ask the untrained model")
    right = {
        row.id: not answer.abstained and is_right(answer.text, row.answers, RIGHT_F1)
        if row.sufficient
        else answer.abstained
        for row, answer in zip(rows, answers, strict=True)
    }
    write_json(stored, {"of": of, "right": right})
    return right
