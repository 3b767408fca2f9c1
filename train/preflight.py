"""`train preflight`: what a run would read, checked before hours are spent on it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from abstain.model import load_tokenizer, model_config
from abstain.prefix import slides
from curate.contract import Contract
from curate.errors import UserError
from curate.record import read_fold
from train.collate import make_pack, pack_examples, tokenise, too_long
from train.material import room, unpackable
from train.settings import TrainSettings

_REFUSED = "packing refused          "
_QUESTION_FIRST = "the chat template does not put the context before the question"
_SLIDES = "its attention or its state takes one sequence only"


@dataclass(frozen=True)
class Preflight:
    """The findings; ``errors`` is empty exactly when `train run` would start."""

    rows: int
    sufficient: int
    tokens: int
    supervised_tokens: int
    supervised_tokens_a_row: float
    end_token: str
    end_token_supervised: bool
    emptied_by_truncation: int
    longest: int
    packs: int
    packed_tokens: int
    saving: float
    refused: str  # why rows share no prefix; empty where they do
    errors: list[str]
    prompt: str
    target: str

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)

    def text(self) -> str:
        """For a person."""
        lines = [
            f"rows                     {self.rows:,} in train, {self.sufficient:,} sufficient",
            f"tokens                   {self.tokens:,}, the longest row {self.longest:,}",
            f"supervised tokens        {self.supervised_tokens:,}, "
            f"{self.supervised_tokens_a_row:.1f} a row (answer and end token)",
            f"end token                {self.end_token} "
            f"{'supervised' if self.end_token_supervised else 'NOT SUPERVISED'} in every row",
            f"emptied by truncation    {self.emptied_by_truncation}",
            f"shared-prefix packing    {self.packed_tokens:,} tokens in {self.packs:,} packs: "
            f"{self.saving:.1f}× fewer",
            *([_REFUSED + self.refused + ": rows share no prefix"] if self.refused else []),
            "",
            "one prompt, exactly as serving sends it, then what the model is to say:",
            "─" * 72,
            self.prompt + self.target + self.end_token,
            "─" * 72,
        ]
        lines += [f"error: {error}" for error in self.errors] or ["ready to train"]
        return "\n".join(lines)


def preflight(data: Path, settings: TrainSettings) -> Preflight:
    """Tokenise as `train run` would, and look at the result: counts are of the train split.

    Rows that are too long are looked for in validation too, since a run would stop at them.
    """
    rows = read_fold(data, "train")
    if not rows:
        raise UserError(f"{data}: its train split has no rows")
    tokenizer, end_token_id, window = load_tokenizer(settings.model)
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    reward = settings.abstain_reward
    examples = tokenise(rows, tokenizer, contract, end_token_id, "train", reward=reward)
    others = read_fold(data, "validation")
    validation = tokenise(others, tokenizer, contract, end_token_id, "validation", reward=reward)
    everything = [*examples, *validation]
    bound = room(window, settings)
    packing = not slides(model_config(settings.model))
    refused = "" if contract.context_first(tokenizer) else _QUESTION_FIRST
    refused = refused if packing else _SLIDES
    max_rows = 1 if refused else settings.max_rows
    packs = [make_pack(pack) for pack in pack_examples(examples, max_rows, settings.max_tokens)]
    tokens = sum(len(e.prompt) + len(e.answer) + len(e.decline) for e in examples)
    supervised = sum(len(pack.targets) for pack in packs)
    packed = sum(len(pack.tree) for pack in packs)
    return Preflight(
        rows=len(rows),
        sufficient=sum(bool(row.sufficient) for row in rows),
        tokens=tokens,
        supervised_tokens=supervised,
        supervised_tokens_a_row=supervised / len(rows),
        end_token=str(tokenizer.convert_ids_to_tokens(end_token_id)),
        end_token_supervised=all(example.answer[-1] == end_token_id for example in examples),
        emptied_by_truncation=sum(len(e.prompt) >= settings.max_tokens for e in everything),
        longest=max(map(len, everything)),
        packs=len(packs),
        packed_tokens=packed,
        saving=tokens / packed,
        refused=refused,
        errors=[
            *unpackable(settings, packing),
            *too_long("train", examples, settings.max_tokens, bound),
            *too_long("validation", validation, settings.max_tokens, bound),
        ],
        prompt=contract.prompt(tokenizer, rows[0].context, rows[0].question, rows[0].history),
        target=contract.target(rows[0].answers, bool(rows[0].sufficient)),
    )
