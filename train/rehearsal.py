"""Rehearsal: what the untrained model says to everyday questions, mixed into training.

Its own replies are what it is not to forget, and need no data of anybody (Huang et al. 2024,
"Mitigating Catastrophic Forgetting in Large Language Models with Self-Synthesized Rehearsal"). They
are learnt like answers, or, with a weight for KL, as whole distributions.
"""

import itertools

from tqdm import tqdm

from abstain.generate import greedy, sampled
from abstain.model import LoadedModel
from train.collate import Example
from train.probes import chat, probes, reply

MAX_NEW_TOKENS = 48


def rehearsal(loaded: LoadedModel, count: int, seed: int) -> list[Example]:
    """So many replies as examples: the likeliest first, then others drawn at random.

    They carry no label: the sufficiency head learns nothing from them.
    """
    if count == 0:
        return []
    asked = itertools.islice(itertools.cycle(probes().rehearsal), count)
    found = []
    for number, question in enumerate(tqdm(asked, "rehearse", count, unit="reply", leave=False)):
        prompt = chat(loaded.tokenizer, question)
        again = number >= len(probes().rehearsal)
        choose = sampled([f"rehearsal/{number}"], seed, 1.0) if again else greedy
        answer = reply(loaded, prompt, MAX_NEW_TOKENS, choose)
        name = f"rehearsal-{number}"
        # The context names the pack: each reply is one of its own.
        found.append(Example(name, name, tuple(prompt), tuple(answer), None))
    return found
