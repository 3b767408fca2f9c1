"""Deriving insufficient rows: how many, from which rows, and never across folds."""

from collections import Counter

import pytest
from curate_helpers import derived_from, make_row, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import context_id
from curate.insufficient import neighbourhoods
from curate.insufficient.derive import Derived, derive
from curate.recipe import InsufficientSettings
from curate.record import Passage


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(0, 40), st.sampled_from([0.0, 0.2, 0.5, 0.6]), st.integers(0, 9)
)
def test_share_is_met_and_natural_rows_count_towards_it(
    yes: int, no: int, share: float, seed: int
) -> None:
    rows = [
        make_row(f"Question {n}?", f"Fact {n} is f{n}. It rained.", [f"f{n}"]) for n in range(yes)
    ]
    rows += [make_row(f"Other {n}?", f"Fact {n} is f{n}. It rained.") for n in range(no)]
    wanted = max(0, round(share * yes / (1 - share)) - no)
    result = derived_from(rows, ("no_context", "evidence_removed"), share=share, seed=seed)
    # Without evidence all contexts read "It rained.": still other rows, as the questions differ.
    assert len(result.rows) == min(wanted, 2 * yes)
    assert result.dropped == []
    made = Counter(row.method for row in result.rows)
    assert abs(made["no_context"] - made["evidence_removed"]) <= 1


def test_derivation_does_not_depend_on_the_order_of_rows() -> None:
    rows = [make_row(f"Q {n}?", f"Fact {n} is f{n}. It rained.", [f"f{n}"]) for n in range(20)]
    methods = ("no_context", "evidence_removed")
    there, back = derived_from(rows, methods), derived_from(rows[::-1], methods)
    assert {row.id: row for row in there.rows} == {row.id: row for row in back.rows}
    assert {row.id for row in derived_from(rows, methods, seed=2).rows} != {
        row.id for row in there.rows
    }


def test_insufficient_and_unlabelled_rows_are_no_parents() -> None:
    rows = [make_row("A?", "Text one."), make_row("B?", "Text two.", sufficient=None)]
    assert derived_from(rows) == Derived()


def test_contexts_that_become_equal_do_not_cross_folds() -> None:
    tail = "It lies in the county and has a mayor."
    rows = [
        make_row(f"Size of {town}?", f"{town} has {n} men. {tail}", [f"{n} men"], town, fold=f)
        for town, n, f in (("Arden", 100, "train"), ("Bexley", 200, "test"))
    ]  # fmt: skip
    result = derived_from(rows, ("evidence_removed",))
    assert [(made.context, made.fold) for made in result.rows] == [(tail, "train")]
    assert reasons(result) == [("evidence_removed", "context_in_other_fold")]


def test_swapped_row_never_contradicts_a_row_that_is_there() -> None:
    rows = [
        make_row("What is the price?", f"{thing} costs {n} pounds.", [f"{n} pounds"], thing)
        for thing, n in (("A card", 3), ("A ride", 4))
    ]
    result = derived_from(rows, ("context_swapped",))
    assert result.rows == []
    assert reasons(result) == [("context_swapped", "contradictory_labels")] * 2


def test_the_same_question_without_context_is_made_once_over_all_folds() -> None:
    rows = [
        make_row("What is the price?", f"{thing} costs {n} pounds.", [f"{n} pounds"], thing, fold=f)
        for thing, n, f in (("A card", 3, "train"), ("A ride", 4, "test"), ("Bread", 5, "test"))
    ]
    result = derived_from(rows, ("no_context",))
    assert [made.fold for made in result.rows] == ["train"]
    assert reasons(result) == [("no_context", "exact_duplicate")] * 2


def test_passages_are_borrowed_within_the_fold_only() -> None:
    row = make_row("Where is gate five?", "Gate five is north.", ["north"], fold="test")
    near = Passage("Where gate five is, nobody said.", "e", context_id("near"), "train")
    far = Passage("Of trams and buses.", "f", context_id("far"), "test")
    (made,) = derived_from([row], ("context_swapped",), passages=(near, far)).rows
    assert made.context == far.context


def test_neighbourhoods_together_meet_the_share_in_any_number_of_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbourhoods, "SIZE", 12)
    rows = [
        make_row(f"Q {n}?", f"Fact {n} is f{n}. It rained on day {n}.", [f"f{n}"], f"d{n // 4}")
        for n in range(60)
    ]
    parts = neighbourhoods.neighbourhoods(rows, [])
    assert len(parts) == 5
    assert sorted(row.id for part in parts for row in part.rows) == sorted(r.id for r in rows)
    methods = ("evidence_removed", "context_swapped", "no_context")
    alone = derived_from(rows, methods, share=0.4)
    assert len(alone.rows) == 40
    assert len({row.id for row in alone.rows}) == 40
    home = {text: number for number, part in enumerate(parts) for text, *_ in part.texts}
    parents = {row.id: row for row in rows}
    for row in alone.rows:
        if row.method == "context_swapped":
            assert home[row.context] == home[parents[row.parent_id].context]
    chosen = InsufficientSettings.model_validate({"share": 0.4, "methods": methods})
    assert derive(rows, [], chosen, 1, workers=2) == alone


def test_what_two_neighbourhoods_make_alike_is_dropped_once_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbourhoods, "SIZE", 1)
    rows = [make_row("Who rules?", f"King {n} rules.", [f"King {n}"], f"d{n}") for n in range(3)]
    result = derived_from(rows, ("no_context",))
    assert len(result.rows) == 1
    assert reasons(result) == [("no_context", "exact_duplicate")] * 2


def test_a_borrowed_passage_brings_its_licence_along() -> None:
    rows = [make_row("Who rules Arden?", "Ada rules Arden.", ["Ada"], licence="CC-BY-4.0")]
    near = [
        Passage(f"Nobody rules Bexley {n}.", f"p{n}", fold="train", licence="CC0-1.0")
        for n in range(3)
    ]
    made = {
        row.method: row.licence
        for row in derived_from(
            rows, ("context_swapped", "noise_passages", "negated"), share=0.8, passages=near
        ).rows
    }
    assert made == {
        "context_swapped": "CC-BY-4.0 AND CC0-1.0",
        "noise_passages": "CC-BY-4.0 AND CC0-1.0",
        "negated": "CC-BY-4.0",
    }
    near[0].licence = near[1].licence = near[2].licence = ""
    (row,) = derived_from(rows, ("context_swapped",), passages=near).rows
    assert row.licence == ""  # of a part of it nobody knows


def test_methods_make_equal_parts_however_small_neighbourhoods_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbourhoods, "SIZE", 4)
    rows = [
        make_row(
            f"Who is it {n}?", f"Person{n} came. It rained on day {n}.", [f"Person{n}"], f"d{n}"
        )
        for n in range(48)
    ]
    methods = ("no_context", "evidence_removed", "context_swapped", "truncated")
    made = Counter(row.method for row in derived_from(rows, methods, share=0.25).rows)
    assert made == dict.fromkeys(methods, 4)


def test_what_one_neighbourhood_cannot_make_another_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbourhoods, "SIZE", 10)
    rows = [
        make_row(
            f"What of {n}?", f"{'A' if n < 20 else 'B'} {n} is f{n}. Rain.", [f"f{n}"], f"d{n}"
        )
        for n in range(40)
    ]
    for row in rows[:20]:  # nothing is left of these once the evidence is cut
        row.context = row.context.removesuffix(" Rain.")
    result = derived_from(rows, ("evidence_removed",), share=0.25)
    assert len(result.rows) == 13
    assert len({row.parent_id for row in result.rows}) == 13


def test_a_cut_context_that_is_one_of_another_fold_is_dropped() -> None:
    tested = (
        "Corby lies on the Nene, has a mill and two bridges, and holds a fair in May each year."
    )
    first = tested.replace("Corby", "Corby town")
    rows = [
        make_row("Where lies Corby?", tested, ["on the Nene"], "a", fold="test"),
        make_row("What lies on the Nene?", first, ["Corby"], "b", fold="test"),
        make_row("Who rules?", f"{tested} Ada Low rules.", ["Ada Low"], "c", fold="train"),
    ]
    for row in rows[:2]:  # near-duplicates, and so of one cluster
        row.context_id = rows[1].context_id
    result = derived_from(rows, ("evidence_removed",), share=0.5)
    assert ("evidence_removed", "context_in_other_fold") in reasons(result)
    assert tested not in {row.context for row in result.rows}
