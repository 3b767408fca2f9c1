"""Insufficient contexts: what each method makes of a row, and the checks of its label."""

import math

import pytest
from curate_helpers import derived_from, make_row, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import context_id
from curate.insufficient import context_swapped
from curate.insufficient.evidence import sentences
from curate.insufficient.made import World
from curate.insufficient.passages import Text, build_index
from curate.record import NOT_A_SPAN, Passage
from curate.text import holds_any

ALL = ("no_context", "evidence_removed", "context_swapped")
PIECES = ["Dr. Low came. ", "Why? ", "A 3.5 m wall", "\n", "\n\n", " ", "(see fig. 2). ", "“No!” ",
          "e.g. this", "...", "U.S. law. ", "1. one ", "\t", "—", "é. "]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join))
def test_sentences_tile_any_text_exactly(text: str) -> None:
    spans = sentences(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = "Dr. Low paid 3.5 pounds.  Why? A list:\n\none item\nanother, e.g. this. End"
    assert [text[start:end] for start, end in sentences(text)] == [
        "Dr. Low paid 3.5 pounds.  ",
        "Why? ",
        "A list:\n\n",
        "one item\n",
        "another, e.g. this. ",
        "End",
    ]


def facts(held: dict[int, str], count: int) -> list[str]:
    """Plain sentences; those whose number is in ``held`` hold that text."""
    return [f"Fact {n} tells that {held.get(n, 'nothing')} is known here." for n in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 8),
    st.dictionaries(
        st.integers(0, 7), st.sampled_from(["Ada", "ADA!", "the Byron", "Byron"]), min_size=1
    ),
    st.integers(0, 50),
)
def test_evidence_removed_cuts_every_sentence_with_an_accepted_answer_and_nothing_else(
    count: int, held: dict[int, str], seed: int
) -> None:
    text = facts(held, count)
    context = " ".join(text)
    row = make_row("Who?", context, ["Ada", "Byron"], answer_starts=[NOT_A_SPAN] * 2)
    result = derived_from([row], ("evidence_removed",), seed=seed)
    expected = " ".join(sentence for n, sentence in enumerate(text) if n not in held)
    if not expected or expected == context:
        assert reasons(result) == [("evidence_removed", "no_candidate")]
        return
    (made,) = result.rows
    assert made.context == expected
    assert made.intensity == pytest.approx(1 - len(expected) / len(context), abs=1e-6)


def test_evidence_removed_cuts_an_annotated_span_over_two_sentences() -> None:
    context = "It rained. Ada left. Bob stayed. The end came."
    row = make_row("Then?", context, ["Ada left. Bob stayed."])
    assert derived_from([row], ("evidence_removed",)).rows[0].context == "It rained. The end came."


def test_evidence_removed_makes_nothing_where_the_evidence_is_not_marked() -> None:
    # The answer "yes" stands nowhere: an uncut context would still be sufficient.
    row = make_row("Is it open?", "It opens at nine. It shuts at five.", ["yes"])
    assert row.answer_starts == [NOT_A_SPAN]
    result = derived_from([row], ("evidence_removed",))
    assert (result.rows, reasons(result)) == ([], [("evidence_removed", "no_candidate")])


def test_no_context_leaves_the_question_alone() -> None:
    row = make_row("Who left?", "Ada left.", ["Ada"])
    (made,) = derived_from([row], ("no_context",)).rows
    assert (made.context, made.context_id, made.intensity) == ("", "", 1.0)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("no_context", "no_context"),
        ("evidence_removed", "evidence_missing"),
        ("context_swapped", "irrelevant_context"),
    ],
)
def test_derived_row_says_what_it_is_and_where_it_came_from(method: str, reason: str) -> None:
    turns = [{"role": "user", "content": "Hello"}]
    origin = {"url": "u", "licence": "CC0-1.0", "language": "en", "retrieved_at": "2025-01-01"}
    parent = make_row(
        "Who left?", "Ada left. It rained.", ["Ada"], fold="test", history=turns, **origin
    )
    near = "Nobody left the house."
    other = Passage(near, "e", context_id(near), "test", licence="CC0-1.0")
    (made,) = derived_from([parent], (method,), passages=(other,)).rows
    assert (made.sufficient, made.reason, made.method) == (False, reason, method)
    assert (made.answers, made.answer_starts) == ([], [])
    assert (made.parent_id, made.document_id, made.fold) == (parent.id, "d", "test")
    assert (made.question, made.history) == (parent.question, parent.history)
    assert all(getattr(made, name) == value for name, value in origin.items())
    assert (made.source, made.source_id) == (parent.source, parent.source_id)
    assert made.id not in ("", parent.id)
    assert made.content_hash == made.current_content_hash()
    assert made.context_id == context_id(made.context)
    assert made.votes == {"answer_present": 0.0, "answer_variant": 0.0}


@pytest.mark.parametrize("answer", ["Ada Lovelace", "ada lovelace", "the ADA LOVELACE"])
def test_candidate_that_still_holds_the_answer_is_dropped_with_its_vote(answer: str) -> None:
    # Between "by Ada." and "Lovelace", the sentences that go; what is left then reads as one.
    context = "It was made by Ada.\nAda Lovelace left.\nLovelace was English."
    row = make_row("Who?", context, [answer], answer_starts=[20])
    (one,) = derived_from([row], ("evidence_removed",)).dropped
    assert (one.step, one.drop_reason) == ("insufficient", "verifiers_disagree")
    assert one.row.context == "It was made by Ada.\nLovelace was English."
    assert one.row.votes == {"answer_present": 1.0, "answer_variant": 1.0}
    assert answer in one.detail and "answer_present" in one.detail


@pytest.mark.parametrize(
    ("context", "answers", "held"),
    [
        ("The cat sat.", ["Cat"], True),
        ("Concatenate.", ["cat"], False),
        ("It costs 3.50 pounds.", ["3.5"], False),
        ("It costs 3.50 pounds.", ["3.50"], True),
        ("It costs 13 pounds.", ["3"], False),
        ("Well-known “Ada” – Lovelace", ["ada lovelace"], True),
        ("Straße", ["STRASSE"], True),
        ("Ada left.", ["Bob", "Ada"], True),
        ("Ada left.", [], False),
        ("Ada left.", ["", " "], False),
        ("Her grade was A.", ["A"], True),
        ("no grade was given.", ["A"], False),
        ("Up by 5 %.", ["%"], True),
        ("Up by 5.", ["%"], False),
    ],
)
def test_answer_is_looked_for_as_whole_words(context: str, answers: list[str], held: bool) -> None:
    assert holds_any(context, answers) is held


def lucene_bm25(query: str, contexts: list[str]) -> list[float]:
    """BM25 as Lucene scores it, written from the formula; texts are plain lower-case words."""
    texts = [context.split() for context in contexts]
    average = sum(map(len, texts)) / len(texts)
    scores = [0.0] * len(texts)
    for word in query.split():
        holding = sum(word in text for text in texts)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for n, text in enumerate(texts):
            count = text.count(word)
            scores[n] += idf * count / (count + 1.5 * (0.25 + 0.75 * len(text) / average))
    return scores


WORDS = [f"w{n}" for n in range(12)]
passage_texts = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=2, max_size=10).map(" ".join),
    min_size=2, max_size=15, unique=True,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(passage_texts, st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), st.data())
def test_context_swapped_borrows_the_nearest_passage_that_holds_no_answer(
    texts: list[str], query: list[str], data: st.DataObject
) -> None:
    own = data.draw(st.sampled_from(texts))
    answer = data.draw(st.sampled_from(own.split()))
    row = make_row(" ".join(query), own, [answer])
    scores = dict(zip(texts, lucene_bm25(row.question, texts), strict=True))
    others = [text for text in texts if text != own]
    allowed = [text for text in others if answer not in text.split()]
    world = World(build_index([Text(text, "d") for text in texts]), seed=1)
    made = context_swapped.make(row, world)
    if not allowed:
        assert made is None
        return
    assert made is not None
    context, intensity = made.context, made.intensity
    assert context is not None and context in allowed
    best = max(scores[text] for text in allowed)
    assert scores[context] == pytest.approx(best, abs=1e-4)
    nearer = sum(scores[text] > scores[context] + 1e-4 for text in others)
    level = sum(abs(scores[text] - scores[context]) <= 1e-4 for text in others)
    assert nearer + 1 <= round(1 / intensity) <= nearer + level


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=2, max_size=20))
def test_context_swapped_borrows_within_the_fold_only(drawn: list[tuple[int, str]]) -> None:
    folds = ("train", "test", "stream")
    rows = [
        make_row(f"Q{n} {word}?", f"context {d} of {word} holds x{d}.", [f"x{d}"], f"d{d}",
                 fold=folds[d % 3])
        for n, (d, word) in enumerate(drawn)
    ]  # fmt: skip
    homes = {row.context: row.fold for row in rows}
    result = derived_from(rows, ("context_swapped",))
    for made in result.rows:
        parent = next(row for row in rows if row.id == made.parent_id)
        assert made.fold == parent.fold == homes[made.context]
        assert made.context != parent.context
    assert {reason for _, reason in reasons(result)} <= {"no_candidate"}
    assert len(result.rows) + len(reasons(result)) == len(rows)


def test_context_swapped_takes_no_other_print_of_the_same_context() -> None:
    row = make_row("Is it open?", "The shop is open now.", ["yes"])
    same = Passage("the shop: is OPEN, now!", "e", row.context_id, "train")
    far = Passage("Quite another matter.", "f", context_id("quite another matter"), "train")
    (made,) = derived_from([row], ("context_swapped",), passages=(same, far)).rows
    assert made.context == far.context


FOOTER = " ".join(f"All the pages of this site end with line number {n}." for n in range(5))


def test_what_becomes_nearly_the_same_in_two_folds_is_dropped() -> None:
    """Two pages of one footer, each of which loses the paragraph that was its own."""
    rows = []
    for n, (name, fold) in enumerate((("Ada Low", "train"), ("Bob Ray Junior", "test"))):
        context = f"{name} {n} came by train on that day. {FOOTER} Page {n}."
        rows.append(make_row("Who came?", context, [f"{name} {n}"], f"d{n}", fold=fold))
    assert rows[0].context_id != rows[1].context_id
    result = derived_from(rows, ("evidence_removed",))
    assert result.rows == []
    assert {reason for _, reason in reasons(result)} == {"context_in_other_fold"}
