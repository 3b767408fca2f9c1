"""Rehearsal: what the untrained model says to everyday questions, mixed into training.

Its own replies are what it is not to forget, and need no data of anybody (Huang et al. 2024,
"Mitigating Catastrophic Forgetting in Large Language Models with Self-Synthesized Rehearsal"). They
are learnt like answers, or, with a weight for KL, as whole distributions.
"""

import itertools
from pathlib import Path

from tqdm import tqdm

from abstain.generate import greedy, sampled
from abstain.model import LoadedModel
from abstain.run import base_hash
from curate.record import digest
from train.collate import Example
from train.kept import kept
from train.probes import chat, probes, reply
from train.settings import TrainSettings

MAX_NEW_TOKENS = 48
REHEARSED = "rehearsed.json"


def rehearsal(loaded: LoadedModel, settings: TrainSettings, rows: int, out: Path) -> list[Example]:
    """The replies that go with so many rows: the likeliest first, then others drawn at random.

    Kept in ``out``, so that a resumed run learns the same. They carry no label: the sufficiency
    head learns nothing from them.
    """
    count = round(settings.replay * rows)
    if count == 0:
        return []
    of = digest(base_hash(loaded.base, settings.base_bits), str(count), str(settings.seed))
    replies = kept(out / REHEARSED, of, lambda: _replies(loaded, count, settings.seed))
    # The context names the pack: each reply is one of its own.
    return [
        Example(name := f"rehearsal-{number}", name, tuple(prompt), tuple(answer), None)
        for number, (prompt, answer) in enumerate(replies)
    ]


def _replies(loaded: LoadedModel, count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """The tokens of prompts and of what the model says to them."""
    asked = itertools.islice(itertools.cycle(probes().rehearsal), count)
    found = []
    for number, question in enumerate(tqdm(asked, "rehearse", count, unit="reply", leave=False)):
        prompt = chat(loaded.tokenizer, question)
        again = number >= len(probes().rehearsal)
        choose = sampled([f"rehearsal/{number}"], seed, 1.0) if again else greedy
        found.append((list(prompt), list(reply(loaded, prompt, MAX_NEW_TOKENS, choose))))
    return found
