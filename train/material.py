"""What a run reads: the train and validation splits, tokenised and packed."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abstain.run import WEIGHTS, look_at
from curate.contract import Contract
from curate.errors import UserError
from curate.files import sha256
from curate.record import Row, digest, read_fold
from train.collate import Example, pack_examples, tokenise, too_long
from train.settings import TrainSettings

log = logging.getLogger(__name__)

# Settings that act when training is over, or change no result: they ask for no other training.
_NEUTRAL = {"average", "forgetting_limit", "lean", "offload", "shard"}


@dataclass
class Material:
    """The train and validation splits as packs of tokenised examples."""

    train: list[list[Example]]
    validation: list[list[Example]]
    rows: int
    fingerprint: str  # of the data and of all settings that training depends on


def read_material(
    data: Path,
    tokenizer: Any,
    end_token_id: int,
    window: int | None,
    settings: TrainSettings,
    packing: bool,
) -> Material:
    """Tokenise and pack; a row that does not fit is an error.

    ``packing``: whether the model allows rows to share a prefix. Where the chat template leaves
    none to share, rows are read alone too, and that is said.
    """
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    if errors := unpackable(settings, packing):
        raise UserError("\n".join(errors))
    if packing and not contract.context_first(tokenizer):
        log.warning(
            "the chat template of %s does not put the context before the question: rows share no "
            "prefix, and each is read alone (slower, same results)",
            settings.model,
        )
        packing = False
    packs: dict[str, list[list[Example]]] = {}
    rows: list[Row] = []
    for fold in ("train", "validation"):
        fold_rows = read_fold(data, fold)
        rows += fold_rows
        weighted = settings.row_weights and fold == "train"
        reward = settings.abstain_reward
        examples = tokenise(fold_rows, tokenizer, contract, end_token_id, fold, weighted, reward)
        if errors := too_long(fold, examples, settings.max_tokens, room(window, settings)):
            raise UserError("\n".join(errors))
        packs[fold] = pack_examples(
            examples, settings.max_rows if packing else 1, settings.max_tokens
        )
    if not packs["train"]:
        raise UserError(f"{data}: its train split has no rows")
    return Material(
        packs["train"],
        packs["validation"],
        sum(map(len, packs["train"])),
        _fingerprint(rows, settings),
    )


def unpackable(settings: TrainSettings, packing: bool) -> list[str]:
    """What is wrong where a model reads one sequence at a time."""
    if packing or not settings.abstain_reward:
        return []
    return [
        f"abstain_reward: two replies are read after one prompt, which {settings.model} cannot "
        "(its attention or its state takes one sequence only); train without it"
    ]


def room(window: int | None, settings: TrainSettings) -> int | None:
    """What virtual tokens leave of a model's window."""
    return None if window is None else window - settings.virtual


def _fingerprint(rows: list[Row], settings: TrainSettings) -> str:
    texts = digest(*(row.id + row.content_hash for row in rows))
    if settings.row_weights:
        texts = digest(texts, *(repr(row.weight) for row in rows))
    fused = [sha256(path) for run in settings.fuse if (path := Path(run) / WEIGHTS).exists()]
    chosen = settings.model_dump_json(exclude=_NEUTRAL)
    weights = look_at(Path(settings.model))
    return digest(texts, chosen, str(settings.rate), *fused, *weights)
