"""`train forgetting`: what a model could do before fine-tuning, and what of it is left.

Fine-tuning on one task takes from others (McCloskey and Cohen 1989; for abstention, over-refusal:
Cheng et al. 2024, "Can AI Assistants Know What They Don't Know?"). Three things are measured before
and after, all outside the contract that training teaches: how well plain text is predicted (bits a
byte, comparable between tokenizers), whether simple instructions are followed and common knowledge
is told, and how often the model now says the abstention phrase to somebody who asked for nothing
that needs a context.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abstain.model import LoadedModel, load_model
from abstain.quantised import bits_of
from abstain.run import CONFIG, read_run_file
from curate.bootstrap import Interval, intervals
from curate.console import interval, table
from curate.contract import Contract
from curate.errors import UserError
from train.probes import Probe, chat, nats, probes, reply

MAX_NEW_TOKENS = 32
BITS = "bits_a_byte"
NAMES = {
    BITS: "bits a byte of plain text (lower is better)",
    "instructions": "simple instructions followed",
    "closed_book": "common questions answered without context",
    "gold_nats": "nats of a good reply (lower is better)",
    "refusals": "of those, refused: over-refusal",
}


@dataclass(frozen=True)
class Abilities:
    """What a model can do outside of its task."""

    bits_a_byte: float  # of plain text; lower is better
    instructions: float  # share of simple instructions followed
    closed_book: float  # share of common questions answered rightly without a context
    gold_nats: float  # mean negative log-likelihood of a good reply to either; lower is better
    refusals: float  # share of either that got the abstention phrase: over-refusal
    # Of each text its bits; of each probe 1 or 0, and its nats: what the means above are of.
    each: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Forgetting:
    """Before and after fine-tuning."""

    before: Abilities
    after: Abilities

    @property
    def lost(self) -> float:
        """How much larger bits a byte have become, as a share: what limits are set on."""
        return self.after.bits_a_byte / self.before.bits_a_byte - 1

    def changes(self) -> dict[str, Interval]:
        """After less before, of bits as a share; what other texts and probes would have told."""
        return {name: _change(name, self.before.each, self.after.each) for name in NAMES}

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        both = {"before": asdict(self.before), "after": asdict(self.after)}
        return {**both, "lost": self.lost, "changes": self.changes()}

    def text(self) -> str:
        """For a person."""
        changes = self.changes()
        lines = [
            (
                text,
                f"{getattr(self.before, name):.3f}",
                f"{getattr(self.after, name):.3f}",
                interval(changes[name]),
            )
            for name, text in NAMES.items()
        ]
        header = ("", "before", "after", "change (of bits, as a share)")
        return table(header, lines) + f"\nplain text costs {self.lost:+.1%} bits"


def _change(name: str, before: dict[str, list[float]], after: dict[str, list[float]]) -> Interval:
    one, other = np.array(before[name]), np.array(after[name])

    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        change = float((other[rows] - one[rows]).sum())
        return {name: change / (float(one[rows].sum()) if name == BITS else len(rows))}

    return intervals(measure, [str(number) for number in range(len(one))])[name]


def abilities(loaded: LoadedModel, contract: Contract) -> Abilities:
    """Ask a model all probes."""
    asked = probes()
    bits, bytes_read = _read(loaded)
    bar = tqdm(
        total=len(asked.instructions) + len(asked.closed_book),
        desc="probe", unit="probe", leave=False,
    )  # fmt: skip
    each: dict[str, list[float]] = {BITS: bits, "gold_nats": [], "refusals": []}
    for name, some in (("instructions", asked.instructions), ("closed_book", asked.closed_book)):
        replies = [_reply(loaded, probe, bar) for probe in some]
        good = [re.search(p.expect, said) for p, said in zip(some, replies, strict=True)]
        each[name] = [float(bool(one)) for one in good]
        each["refusals"] += [float(refuses(contract, said)) for said in replies]
        each["gold_nats"] += _gold(loaded, some)
    bar.close()
    means = {name: mean(values) for name, values in each.items() if name != BITS}
    return Abilities(sum(bits) / bytes_read, each=each, **means)


def bits_a_byte(loaded: LoadedModel) -> float:
    """What a model pays for plain text, comparable between tokenizers."""
    bits, bytes_read = _read(loaded)
    return sum(bits) / bytes_read


def _read(loaded: LoadedModel) -> tuple[list[float], int]:
    """The bits of each text, and the bytes of all, their first tokens left out."""
    bits, bytes_read = [], 0
    for text in tqdm(probes().text, desc="read", unit="text", leave=False):
        tokens = loaded.tokenizer.encode(text, add_special_tokens=False)
        bits.append(nats(loaded, tokens[:1], tokens[1:]) / math.log(2))
        bytes_read += len(text.encode()) - len(loaded.tokenizer.decode(tokens[:1]).encode())
    return bits, bytes_read


def _reply(loaded: LoadedModel, probe: Probe, bar: Any) -> str:
    tokens = reply(loaded, chat(loaded.tokenizer, probe.ask), MAX_NEW_TOKENS)
    bar.update()
    return str(loaded.tokenizer.decode(tokens, skip_special_tokens=True))


def refuses(contract: Contract, said: str) -> bool:
    """Whether the phrase is all that it says, or what it begins with."""
    return contract.is_abstention(said) or said.casefold().lstrip().startswith(
        contract.abstention_phrase.casefold()
    )


def _gold(loaded: LoadedModel, some: Sequence[Probe]) -> list[float]:
    return [
        nats(
            loaded,
            chat(loaded.tokenizer, probe.ask),
            [*loaded.tokenizer.encode(probe.gold, add_special_tokens=False), loaded.end_token_id],
        )
        for probe in some
    ]


def forgetting(run: Path) -> Forgetting:
    """Measure a run against the model that it was trained from."""
    after = load_model(str(run))
    if not (run / CONFIG).exists():
        raise UserError(f"{run}: not a run of `train run` (no adapter_config.json)")
    contract = read_run_file(run).contract
    before = load_model(after.base, bits_of(run))
    return Forgetting(abilities(before, contract), abilities(after, contract))
