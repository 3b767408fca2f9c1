"""What a model says when asked again: P(True), and answers drawn at random."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from abstain.blocks import cut_cache
from abstain.generate import decode, sampled
from abstain.prefix import Tree, common_prefix, forward

# What P(True) asks (Kadavath et al. 2022, "Language Models (Mostly) Know What They Know").
TRUE_QUESTION = (
    "{question}\nProposed answer: {answer}\n"
    "Does the context show that the proposed answer is right? Reply yes or no."
)
YES, NO = ("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No")
MAX_BRANCHES = 48


def true_logits(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    cache: Any,
    read: Sequence[int],
    read_at: Sequence[int],
) -> list[float]:
    """log P(yes) − log P(no) behind each prompt that asks `TRUE_QUESTION`.

    ``cache`` holds the tokens ``read`` of one sequence at the places ``read_at``; what the prompts
    share with them is not computed again. Without a cache, there is one prompt.
    """
    tree = Tree()
    if cache is None:
        tree.add(prompts[0])
        logits = forward(model, tree, [len(tree) - 1]).logits
    else:
        shared = common_prefix([*prompts, [*read, -1]])
        root = tree.add(prompts[0][:shared])
        at = [tree.last(tree.add(prompt[shared:], root)) for prompt in prompts]
        logits = forward(model, tree, at, cache=cut_cache(model, cache, read_at[:shared])).logits
    log_p = logits.log_softmax(-1)

    def first_tokens(words: Sequence[str]) -> set[int]:
        return {tokenizer.encode(word, add_special_tokens=False)[0] for word in words}

    yes, no = first_tokens(YES), first_tokens(NO)
    both = yes & no  # a tokenizer may begin " yes" and " no" with the same bare space

    def of(tokens: set[int]) -> Tensor:
        return log_p[:, sorted(tokens - both or tokens)].logsumexp(-1)

    return list((of(yes) - of(no)).tolist())


def draw_samples(
    model: Any,
    tree: Tree,
    questions: Sequence[int],
    first: Tensor,
    cache: Any,
    names: Sequence[str],
    end_token_id: int,
    max_new_tokens: int,
    count: int,
    temperature: float,
    seed: int,
) -> list[list[list[int]]]:
    """``count`` answers to each question, drawn at a temperature: their tokens.

    The branches grow below the questions of ``tree``, on what ``cache`` holds.
    """
    result: list[list[list[int]]] = []
    step = max(1, MAX_BRANCHES // count)
    for begin in range(0, len(questions), step):
        some = range(begin, min(begin + step, len(questions)))
        choose = sampled([f"{names[i]}/{k}" for i in some for k in range(count)], seed, temperature)
        parents = [questions[i] for i in some for _ in range(count)]
        logits = first[list(some)].repeat_interleave(count, 0)
        grown = decode(model, tree, parents, logits, cache, end_token_id, max_new_tokens, choose)
        result += [[g.tokens for g in grown[k : k + count]] for k in range(0, len(grown), count)]
    return result


def draw_samples_alone(
    model: Any, prompt: Sequence[int], first: Tensor, name: str, count: int, **how: Any
) -> list[list[int]]:
    """The same for one question of a model whose branches cannot share a tree."""
    from transformers import DynamicCache

    result = []
    for number in range(count):
        tree = Tree()
        segment = tree.add(prompt)
        cache = DynamicCache(config=model.config)
        forward(model, tree, [len(tree) - 1], cache=cache)
        choose = sampled([f"{name}/{number}"], how["seed"], how["temperature"])
        grown = decode(
            model, tree, [segment], first, cache, how["end_token_id"], how["max_new_tokens"], choose
        )
        result.append(grown[0].tokens)
    return result
