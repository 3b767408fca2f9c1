"""Probes of what a model could do before it was fine-tuned; the texts are in probes.yaml."""

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
import yaml
from torch.nn import functional

from abstain.generate import Choose, decode, greedy
from abstain.model import LoadedModel
from abstain.prefix import Tree, forward


@dataclass(frozen=True)
class Probe:
    """A question outside of any context."""

    ask: str
    expect: str  # a regular expression that a good reply matches
    gold: str  # one good reply


@dataclass(frozen=True)
class Probes:
    """Everything that probes.yaml holds."""

    text: list[str]
    instructions: list[Probe]
    closed_book: list[Probe]
    rehearsal: list[str]


@functools.cache
def probes() -> Probes:
    """The probes of this version."""
    stored = yaml.safe_load(resources.files("train").joinpath("probes.yaml").read_text("utf-8"))
    return Probes(
        stored["text"],
        [Probe(**one) for one in stored["instructions"]],
        [Probe(**one) for one in stored["closed_book"]],
        stored["rehearsal"],
    )


def chat(tokenizer: Any, question: str) -> list[int]:
    """A question as a plain user turn, without our contract, up to where the reply begins."""
    if tokenizer.chat_template is None:
        text = f"Question: {question}\nAnswer: "
    else:
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text, add_special_tokens=False))


@torch.inference_mode()
def reply(
    loaded: LoadedModel, prompt: list[int], max_new_tokens: int, choose: Choose = greedy
) -> list[int]:
    """A reply, the likeliest unless chosen otherwise, with the end token where it came."""
    from transformers import DynamicCache

    tree = Tree()
    segment = tree.add(prompt)
    cache = DynamicCache(config=loaded.model.config)
    first = forward(loaded.model, tree, [len(tree) - 1], cache=cache).logits
    grown = decode(
        loaded.model, tree, [segment], first, cache, loaded.end_token_id, max_new_tokens, choose
    )
    return grown[0].tokens


@torch.inference_mode()
def nats(loaded: LoadedModel, prompt: list[int], answer: list[int]) -> float:
    """Negative log-likelihood of some tokens behind a prompt."""
    tree = Tree()
    tree.add([*prompt, *answer[:-1]])
    at = range(len(prompt) - 1, len(tree))
    logits = forward(loaded.model, tree, at).logits
    targets = torch.tensor(answer, device=logits.device)
    return float(functional.cross_entropy(logits, targets, reduction="sum"))
