"""Near-duplicates against brute force: what is found, what is missed, and what hangs together."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.near_duplicates import SIMILAR, clusters, jaccard, joins, shingles

WORDS = [f"w{n}" for n in range(400)]


def texts_of(count: int, seed: int) -> list[str]:
    """Texts of 60 words; every second one is an edited copy of the one before."""
    draw = random.Random(seed)
    found: list[str] = []
    while len(found) < count:
        text = draw.choices(WORDS, k=60)
        found.append(" ".join(text))
        for place in draw.sample(range(60), draw.randint(0, 6)):
            text[place] = draw.choice(WORDS)
        found.append(" ".join(text))
    return found


def similar_pairs(texts: list[str]) -> set[tuple[int, int]]:
    sets = [shingles(text) for text in texts]
    return {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(sets[i], sets[j]) >= SIMILAR
    }


def test_nearly_all_similar_pairs_end_in_one_cluster_and_no_others() -> None:
    texts = texts_of(600, seed=4)
    wanted = similar_pairs(texts)
    found = clusters(texts)
    together = {(i, j) for i in range(600) for j in range(i + 1, 600) if found[i] == found[j]}
    assert len(wanted) > 50
    assert len(wanted & together) >= 0.95 * len(wanted)
    assert together <= wanted  # copies of copies would be more; here there are none


def test_joins_over_a_border_hold_every_text_that_has_a_pair_there() -> None:
    texts = texts_of(600, seed=4)
    sides = [random.Random(9).choices("abc", k=600), "a" * 600]
    for side in sides:
        wanted = {pair for pair in similar_pairs(texts) if side[pair[0]] != side[pair[1]]}
        found = joins(texts, side)
        assert all(side[one] != side[other] for one, other in found)
        assert {tuple(sorted(pair)) for pair in found} <= wanted
        touched = {number for pair in found for number in pair}
        reached = [pair for pair in wanted if touched.issuperset(pair)]
        assert len(reached) >= 0.95 * len(wanted)


def test_a_chain_of_edits_is_one_cluster_though_its_ends_differ() -> None:
    text = random.Random(3).choices(WORDS, k=200)
    chain = [" ".join(text)]
    for step in range(30):
        text[step * 6] = "edited"
        chain.append(" ".join(text))
    assert jaccard(shingles(chain[0]), shingles(chain[-1])) < SIMILAR
    assert set(clusters(chain)) == {0}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(texts_of(40, seed=1)), max_size=12), st.randoms())
def test_clusters_do_not_hang_on_order_and_joins_make_them(
    texts: list[str], shuffled: random.Random
) -> None:
    texts = sorted(set(texts))
    found = clusters(texts)
    assert all(found[first] == first <= number for number, first in enumerate(found))
    pairs = joins(texts)
    assert len(pairs) == len(texts) - len(set(found))
    for one, other in pairs:
        assert jaccard(shingles(texts[one]), shingles(texts[other])) >= SIMILAR
    order = list(range(len(texts)))
    shuffled.shuffle(order)
    again = clusters([texts[number] for number in order])
    for i in range(len(texts)):
        for j in range(len(texts)):
            same = again[order.index(i)] == again[order.index(j)]
            assert same == (found[i] == found[j])


@pytest.mark.parametrize("text", ["", "?!", "one", "one two"])
def test_texts_of_few_words_or_none(text: str) -> None:
    assert clusters([text, "quite another text of several words", text + " "])[:2] == [0, 1]
    same = clusters([text, "another text of words", text])[2]
    assert same == (0 if text.strip("?!") else 2)
