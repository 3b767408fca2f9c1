"""Deduplication: one of equal rows stays, and none of rows that contradict each other."""

import random
import subprocess
import sys

import pytest
from curate_helpers import ROOT, make_row
from helpers import ENVIRONMENT
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import context_id, dedup, dedup_passages
from curate.record import Passage, Row


def outcome(rows: list[Row]) -> tuple[list[str], dict[str, list[str]]]:
    """Source ids of the kept rows, and of the dropped ones by reason."""
    kept, dropped = dedup(rows)
    reasons: dict[str, list[str]] = {}
    for one in dropped:
        reasons.setdefault(one.drop_reason, []).append(one.row.source_id)
    return [row.source_id for row in kept], reasons


def row(
    name: str, question: str, context: str = "Ada left Rome.", *answers: str, **more: object
) -> Row:
    return make_row(question, context, answers, source_id=name, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "context"),
    [
        ("Who left?", "Ada left Rome."),
        ("who LEFT", "Ada left Rome."),
        ("  Who   left ?", "Ada  left\nRome"),
        ("Who left?", "“Ada” left – Rome!"),
        ("Who left the?", "An Ada left the Rome."),
    ],
)
def test_rows_that_differ_only_in_form_are_one(question: str, context: str) -> None:
    rows = [row("a", "Who left?"), row("b", question, context), row("c", "Who came?")]
    assert outcome(rows) == (["a", "c"], {"exact_duplicate": ["b"]})


@pytest.mark.parametrize(
    ("question", "context"),
    [
        ("Who left Rome?", "Ada left Rome."),
        ("Who left?", "Ada left Rome 2."),
        ("Who left?", "Rome left Ada."),
        ("Who left?", ""),
    ],
)
def test_rows_with_other_words_both_stay(question: str, context: str) -> None:
    assert outcome([row("a", "Who left?"), row("b", question, context)]) == (["a", "b"], {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is C++?", "What is C#?"),
        ("What is 3 + 4?", "What is 3 * 4?"),
        ("Is x < 3?", "Is x > 3?"),
        ("Is it 1.5?", "Is it 15?"),
        ("How much is 5 %?", "How much is $5?"),
    ],
)
def test_signs_that_carry_meaning_tell_questions_apart(one: str, other: str) -> None:
    assert outcome([row("a", one), row("b", other)]) == (["a", "b"], {})


def test_same_question_after_another_history_stays() -> None:
    turns = [{"role": "user", "content": "I mean Bob."}]
    rows = [row("a", "Who left?"), row("b", "Who left?", history=turns)]
    assert outcome(rows) == (["a", "b"], {})


def test_all_rows_of_a_contradiction_go_and_name_each_other() -> None:
    rows = [
        row("a", "Who left?", "Ada left Rome.", "Ada"),
        row("b", "who left", "Ada left Rome"),
        row("c", "Who left?", "Ada left Rome.", "Ada"),
        row("d", "Who stayed?"),
    ]
    kept, dropped = dedup(rows)
    assert [r.source_id for r in kept] == ["d"]
    assert {(d.row.source_id, d.drop_reason) for d in dropped} == {
        (name, "contradictory_labels") for name in "abc"
    }
    assert all(r.id in d.detail for d in dropped for r in rows[:3])


def test_row_without_a_label_contradicts_one_with_a_label() -> None:
    rows = [row("a", "Who left?"), row("b", "Who left?", sufficient=None, reason="")]
    assert outcome(rows) == ([], {"contradictory_labels": ["a", "b"]})


def test_duplicate_names_the_row_that_stayed() -> None:
    first, second = row("a", "Who left?"), row("b", "Who left?")
    (one,) = dedup([first, second])[1]
    assert (one.step, one.detail) == ("dedup", f"same as {first.id}")


def test_contexts_of_the_same_words_share_a_cluster_and_empty_ones_have_none() -> None:
    assert context_id("The Cat sat, on 3.5 mats.") == context_id("cat sat on 3.5  MATS")
    assert context_id("cat sat on 3.5 mats") != context_id("cat sat on 35 mats")
    assert context_id("") == context_id(" … ") == ""
    kept, _ = dedup([row("a", "Q?", "One text."), row("b", "R?", "one, text"), row("c", "S?", "")])
    assert [r.context_id for r in kept] == [context_id("one text"), context_id("one text"), ""]


def test_passages_of_one_cluster_are_kept_once() -> None:
    passages = [Passage("One text.", "a"), Passage("one text", "b"), Passage("Another.", "b")]
    kept = dedup_passages(passages)
    assert [(p.document_id, p.context_id) for p in kept] == [
        ("a", context_id("one text")),
        ("b", context_id("another")),
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=25),
    st.randoms(use_true_random=False),
)
def test_every_row_is_kept_or_dropped_once_whatever_the_order(
    drawn: list[tuple[int, int, bool]], order: random.Random
) -> None:
    rows = [
        row(str(n), f"Question {q}?", f"Context {c}.", *(["Context"] if label else []))
        for n, (q, c, label) in enumerate(drawn)
    ]
    order.shuffle(rows)
    kept, dropped = dedup(rows)
    assert sorted([r.id for r in kept] + [d.row.id for d in dropped]) == sorted(r.id for r in rows)
    labels: dict[tuple[int, int], set[bool]] = {}
    for q, c, label in drawn:
        labels.setdefault((q, c), set()).add(label)
    agreed = {
        (f"Question {q}?", f"Context {c}.") for (q, c), seen in labels.items() if len(seen) == 1
    }
    assert sorted((r.question, r.context) for r in kept) == sorted(agreed)


def test_what_is_nearly_the_same_does_not_hang_on_the_seed_of_hashes() -> None:
    """Number words are read in their order, whatever order a set has in this process."""
    code = (
        "from curate_helpers import make_row; from curate.dedup import dedup\n"
        "asked = ('How many of the two hundred ships sank?', 'How many of the 200 ships sank?')\n"
        "rows = [make_row(q, 'Of the ships nine sank.', ['nine']) for q in asked]\n"
        "print(len(dedup(rows)[0]))"
    )
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**ENVIRONMENT, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "1\n"


def test_of_equal_rows_the_one_that_was_tested_on_stays() -> None:
    rows = [row("new", "Who left?", document="b"), row("old", "Who left?", document="a")]
    kept, _ = dedup(rows, known={"a": "test", "b": "train"})
    assert [one.source_id for one in kept] == ["old"]
