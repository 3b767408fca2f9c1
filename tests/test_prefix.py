"""Shared-prefix packing computes what a model computes row by row."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abstain.model import load_model
from abstain.prefix import (
    Tree,
    branch_out,
    common_prefix,
    forward,
    group_by_prefix,
    supports_packing,
)

PROMPTS = [
    [5, 6, 7, 8, 9, 10, 11, 12, 40, 41],
    [5, 6, 7, 8, 9, 10, 11, 12, 50],
    [5, 6, 7, 8, 9, 10, 11, 12, 60, 61, 62],
]


@st.composite
def trees(draw: Any) -> Tree:
    """Trees of a few segments, some of them empty, some grown later."""
    tree = Tree()
    tree.add(draw(st.lists(st.integers(0, 99), min_size=1, max_size=5)))
    for number in range(draw(st.integers(0, 5))):
        tree.add(draw(st.lists(st.integers(0, 99), max_size=4)), draw(st.integers(0, number)))
    for segment in draw(st.lists(st.integers(1, 5), max_size=3)):
        if segment < len(tree.parents) and segment not in tree.parents:
            tree.extend(segment, [7])
    return tree


@given(trees())
@settings(max_examples=100, deadline=None)
def test_a_token_sees_its_own_path_and_nothing_else(tree: Tree) -> None:
    visible = tree.visible()
    for row in range(len(tree)):
        path, segment = set(), tree.segments[row]
        while segment != -1:
            path.add(segment)
            segment = tree.parents[segment]
        expected = [j <= row and tree.segments[j] in path for j in range(len(tree))]
        assert visible[row].tolist() == expected
        assert tree.positions[row] == sum(expected) - 1  # its depth, as if it stood alone


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=5))
def test_the_common_prefix_is_the_longest_that_leaves_each_a_token(rows: list[list[int]]) -> None:
    length = common_prefix(rows)
    assert all(row[:length] == rows[0][:length] and len(row) > length for row in rows)
    longer = length + 1
    assert any(len(r) <= longer or r[:longer] != rows[0][:longer] for r in rows)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=30),
    st.integers(1, 5),
    st.integers(10, 100),
)
def test_groups_hold_every_row_once_within_their_limits(
    rows: list[tuple[str, int]], max_rows: int, max_tokens: int
) -> None:
    keys, lengths = [k for k, _ in rows], [n for _, n in rows]
    packs = group_by_prefix(keys, lengths, max_rows, max_tokens)
    assert sorted(i for pack in packs for i in pack) == list(range(len(rows)))
    for pack in packs:
        assert len({keys[i] for i in pack}) == 1
        assert len(pack) <= max_rows
        assert len(pack) == 1 or sum(lengths[i] for i in pack) <= max_tokens


def compare(model: Any, prompts: list[list[int]], layers: tuple[int, ...]) -> None:
    """Logits and hidden states at every branch's own tokens, packed and row by row."""
    tree, segments = branch_out(prompts)
    shared = common_prefix(prompts)
    with torch.no_grad():
        for prompt, segment in zip(prompts, segments, strict=True):
            own = len(prompt) - shared
            last = tree.last(segment)
            packed = forward(model, tree, range(last - own + 1, last + 1), layers)
            alone = model(torch.tensor([prompt]), output_hidden_states=True)
            torch.testing.assert_close(packed.logits, alone.logits[0, -own:], atol=1e-4, rtol=1e-4)
            for column, layer in enumerate(layers):
                expected = alone.hidden_states[layer][0, -own:]
                scale = expected.abs().max().item()
                torch.testing.assert_close(
                    packed.hidden[:, column], expected, atol=1e-5 * scale, rtol=1e-4
                )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_equals_row_by_row_on_a_tiny_model(tiny_model: Any, attention: str) -> None:
    model = load_model(str(tiny_model)).model
    model.set_attn_implementation(attention)
    compare(model, PROMPTS, (1, 3))


def test_packed_equals_row_by_row_on_the_real_model(real_model: Any) -> None:
    texts = [
        "The annual membership costs £72 and runs for twelve months. How much is it?",
        "The annual membership costs £72 and runs for twelve months. Who sells it in town?",
        "The annual membership costs £72 and runs for twelve months. How long?",
    ]
    compare(real_model.model, [real_model.tokenizer.encode(text) for text in texts], (16, 30))


def test_a_nested_tree_equals_each_path_alone(tiny_model: Any) -> None:
    model = load_model(str(tiny_model)).model
    tree = Tree()
    root = tree.add([5, 6, 7])
    question = tree.add([8, 9], root)
    tree.add([20, 21], root)  # a sibling that must not be seen
    leaves = [tree.add([30, 31], question), tree.add([32], question)]
    with torch.no_grad():
        packed = forward(model, tree, [tree.last(leaf) for leaf in leaves]).logits
        alone = [
            model(torch.tensor([p])).logits[0, -1]
            for p in ([5, 6, 7, 8, 9, 30, 31], [5, 6, 7, 8, 9, 32])
        ]
    torch.testing.assert_close(packed, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_models_that_allow_packing_are_recognised(tiny_model: Any, real_model: Any) -> None:
    assert supports_packing(load_model(str(tiny_model)).model)
    assert supports_packing(real_model.model)


def test_an_architecture_with_its_own_positions_falls_back(caplog: Any) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(
        BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=2)
    ).eval()
    assert not supports_packing(model)
    assert "falling back" in caplog.text
    tree = Tree()
    tree.add([1, 2, 3])
    with torch.no_grad():
        logits = forward(model, tree, [2]).logits  # one row a tree still works
        expected = model(torch.tensor([[1, 2, 3]])).logits[0, -1:]
    torch.testing.assert_close(logits, expected)


def test_layers_that_see_only_the_latest_tokens_fall_back() -> None:
    # A trial of a few tokens fits into the window, and so cannot tell.
    from transformers import DynamicCache, MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}
    whole = MistralForCausalLM(MistralConfig(**size, **heads, sliding_window=None)).eval()
    assert supports_packing(whole)
    model = MistralForCausalLM(MistralConfig(**size, **heads, sliding_window=20)).eval()
    assert not supports_packing(model)
    # One row a tree still works, beyond the window and token by token.
    tokens = torch.randint(0, 64, (40,)).tolist()
    tree, cache = Tree(), DynamicCache(config=model.config)
    with torch.no_grad():
        last = tree.add(tokens[:30])
        forward(model, tree, [29], cache=cache)
        for token in tokens[30:]:
            last = tree.add([token], last)
            logits = forward(model, tree, [len(tree) - 1], cache=cache).logits
        expected = model(torch.tensor([tokens])).logits[0, -1:]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
