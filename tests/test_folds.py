"""Folds: whole documents, tied contexts together, a ledger that only grows."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from curate_helpers import make_row
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import folds
from curate.dedup import context_id
from curate.errors import UserError
from curate.record import Passage, Row

SHARES = {"train": 0.6, "validation": 0.1, "calibration": 0.15, "test": 0.15}
# An edge: a question about context c that stands in document d, answerable or not.
edges = st.tuples(st.integers(0, 15), st.integers(0, 20), st.booleans())


def rows_of(drawn: list[tuple[int, int, bool]]) -> list[Row]:
    return [
        make_row(f"Q{n}?", f"context {c}", ["context"] if label else [], f"doc{d}")
        for n, (d, c, label) in enumerate(drawn)
    ]


def passages_of(drawn: list[tuple[int, int]]) -> list[Passage]:
    return [Passage(f"context {c}", f"doc{d}", context_id(f"context {c}")) for d, c in drawn]


def assert_no_leak(rows: list[Row], passages: list[Passage]) -> None:
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in [*rows, *passages]:
        assert item.fold in SHARES
        seen["document", item.document_id].add(item.fold)
        if item.context_id:
            seen["context", item.context_id].add(item.fold)
    assert {name: found for name, found in seen.items() if len(found) > 1} == {}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(edges, max_size=40),
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 30)), max_size=20),
    st.integers(0, 3),
)
def test_no_document_and_no_context_is_in_two_folds(
    drawn: list[tuple[int, int, bool]], borrowed: list[tuple[int, int]], seed: int
) -> None:
    rows, passages = rows_of(drawn), passages_of(borrowed)
    ledger = folds.assign(rows, passages, SHARES, seed, {})
    kept, placed, dropped = folds.apply(rows, passages, ledger)
    assert dropped == []
    assert (len(kept), len(placed)) == (len(rows), len(passages))
    assert_no_leak(kept, placed)
    assert set(ledger) == {item.document_id for item in [*rows, *passages]}


@settings(max_examples=150, deadline=None)
@given(st.lists(edges, max_size=25), st.lists(edges, max_size=25), st.booleans())
def test_later_builds_extend_the_ledger_and_never_rewrite_it(
    first: list[tuple[int, int, bool]], second: list[tuple[int, int, bool]], keeps_old: bool
) -> None:
    before = folds.assign(rows_of(first), [], SHARES, 1, {})
    rows = rows_of([*first, *second] if keeps_old else second)
    after = folds.assign(rows, [], SHARES, 1, before)
    assert {document: after[document] for document in before} == before
    assert set(after) == set(before) | {row.document_id for row in rows}
    kept, _, dropped = folds.apply(rows, [], after)
    assert_no_leak(kept, [])
    assert len(kept) + len(dropped) == len(rows)
    assert {d.drop_reason for d in dropped} <= {"context_in_other_fold"}


@settings(max_examples=100, deadline=None)
@given(st.lists(edges, max_size=30), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_rows(
    drawn: list[tuple[int, int, bool]], order: random.Random
) -> None:
    rows = rows_of(drawn)
    expected = folds.assign(rows, [], SHARES, 7, {})
    shuffled = order.sample(rows, len(rows))
    assert folds.assign(shuffled, [], SHARES, 7, {}) == expected


def test_another_seed_draws_other_folds() -> None:
    rows = rows_of([(d, d, True) for d in range(16)])
    drawn = {tuple(folds.assign(rows, [], SHARES, seed, {}).items()) for seed in range(5)}
    assert len(drawn) > 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=4, max_size=40))
def test_shares_are_met_as_far_as_whole_documents_allow(sizes: list[tuple[int, int]]) -> None:
    rows = rows_of([(d, d, n < yes) for d, (count, yes) in enumerate(sizes) for n in range(count)])
    ledger = folds.assign(rows, [], SHARES, 3, {})
    got = Counter(ledger[row.document_id] for row in rows)
    largest = max(count for count, _ in sizes)
    for fold, share in SHARES.items():
        assert abs(got[fold] - share * len(rows)) <= 2 * largest, got


def test_labels_are_spread_like_the_rows() -> None:
    # Documents of one label each: by rows alone, a fold could get one label only.
    rows = rows_of([(d, d, d % 2 == 0) for d in range(200) for _ in range(5)])
    ledger = folds.assign(rows, [], SHARES, 3, {})
    for label in (True, False):
        got = Counter(ledger[row.document_id] for row in rows if row.sufficient is label)
        for fold, share in SHARES.items():
            assert abs(got[fold] - share * 500) <= 5


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=4, max_size=12),
    st.integers(0, 12),
    st.integers(0, 5),
)
def test_every_fold_gets_rows_when_there_are_enough_documents(
    sizes: list[int], only_passages: int, seed: int
) -> None:
    rows = rows_of([(d, d, n % 2 == 0) for d, count in enumerate(sizes) for n in range(count)])
    passages = passages_of([(100 + n, 100 + n) for n in range(only_passages)])
    ledger = folds.assign(rows, passages, SHARES, seed, {})
    assert {ledger[row.document_id] for row in rows} == set(SHARES)


def test_documents_with_passages_alone_are_spread_over_the_folds_too() -> None:
    rows = rows_of([(d, d, True) for d in range(20)])
    passages = passages_of([(100 + n, 100 + n) for n in range(100)])
    ledger = folds.assign(rows, passages, SHARES, 1, {})
    got = Counter(ledger[passage.document_id] for passage in passages)
    assert got == {"train": 60, "validation": 10, "calibration": 15, "test": 15}


def test_new_document_that_shares_a_context_follows_the_known_one() -> None:
    for fold in SHARES:
        rows = rows_of([(1, 5, True), (2, 5, False), (2, 6, True)])
        assert folds.assign(rows, [], SHARES, 1, {"doc1": fold})["doc2"] == fold


def test_context_that_later_ties_parted_documents_stays_where_it_was_tested() -> None:
    rows = rows_of([(1, 5, True), (2, 5, True), (2, 6, True)])
    ledger = folds.assign(rows, [], SHARES, 1, {"doc1": "train", "doc2": "test"})
    kept, _, dropped = folds.apply(rows, [], ledger)
    assert [(row.document_id, row.fold) for row in kept] == [("doc2", "test"), ("doc2", "test")]
    (one,) = dropped
    assert (one.row.document_id, one.drop_reason) == ("doc1", "context_in_other_fold")
    assert "in test" in one.detail
    assert "in train" in one.detail


def test_empty_contexts_tie_nothing_together() -> None:
    rows = [make_row(f"Q{d}?", "", [], f"doc{d}") for d in range(40)]
    assert set(folds.assign(rows, [], SHARES, 1, {}).values()) == set(SHARES)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"documents": {"a": "exam"}}', '{"documents": {"a": ["train"]}}']
)
def test_ledger_that_is_none_is_refused_and_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(UserError, match=r"folds.json: not a fold ledger"):
        folds.read_ledger(tmp_path / "folds.json")


def test_ledger_is_read_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    assert folds.read_ledger(tmp_path / "folds.json") == {}
    (tmp_path / "folds.json").write_text(json.dumps({"documents": {"a": "test"}}))
    assert folds.read_ledger(tmp_path / "folds.json") == {"a": "test"}


def test_by_time_the_newest_documents_are_tested_on() -> None:
    rows = [
        make_row(f"Q{n}?", f"context {n}", ["context"], f"doc{n % 20}",
                 retrieved_at=f"2026-01-{n % 20 + 1:02}")
        for n in range(100)
    ]  # fmt: skip
    ledger = folds.assign(rows, [], SHARES, 1, {}, by_time=True)
    days = {fold: [int(d[3:]) for d, f in ledger.items() if f == fold] for fold in SHARES}
    assert max(days["train"]) < min(days["validation"]) <= max(days["validation"])
    assert max(days["calibration"]) < min(days["test"]) and max(days["test"]) == 19
    assert {fold: len(found) for fold, found in days.items()} == {
        "train": 12, "validation": 2, "calibration": 3, "test": 3
    }  # fmt: skip
    rows[7].retrieved_at = ""
    with pytest.raises(UserError, match=rf"1 rows have none \(the first: {rows[7].id}"):
        folds.assign(rows, [], SHARES, 1, {}, by_time=True)


def test_sources_held_out_are_tested_on_and_nothing_else_is_lost() -> None:
    rows = rows_of([(n, n, bool(n % 2)) for n in range(30)])
    for n, row in enumerate(rows):
        row.source = "held" if n % 10 == 0 else "seen"
    rows.append(make_row("Also?", "context 10", ["context"], "doc99"))  # shares a held-out context
    ledger = folds.assign(rows, [], SHARES, 1, {}, test_sources=["held"])
    assert {ledger[f"doc{n}"] for n in (0, 10, 20, 99)} == {"test"}
    assert set(ledger.values()) == set(SHARES)


def test_folds_are_balanced_by_source_too() -> None:
    rows = [
        make_row(f"Q{n}?", f"context {n}", ["context"], f"doc{n}", source_id=str(n))
        for n in range(200)
    ]
    for n, row in enumerate(rows):
        row.source = "rare" if n % 10 == 0 else "common"
    ledger = folds.assign(rows, [], SHARES, 1, {})
    rare = Counter(ledger[row.document_id] for row in rows if row.source == "rare")
    assert rare["train"] == 12 and rare["calibration"] == rare["test"] == 3


def test_a_source_cannot_be_held_out_that_was_trained_on_before() -> None:
    rows = rows_of([(1, 1, True), (2, 2, True)])
    with pytest.raises(UserError, match="document doc1 of source 'test' is in train since"):
        folds.assign(rows, [], SHARES, 1, {"doc1": "train"}, test_sources=["test"])
