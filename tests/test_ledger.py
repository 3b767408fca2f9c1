"""Trying until one holds is seen, however the rows and the run are changed in between."""

import dataclasses
from pathlib import Path

import pytest

from abstain.ledger import Entry, Ledger
from curate.errors import UserError
from curate.record import Row

ROWS = [Row(f"question {n}", "context", id=f"r{n}", content_hash="h") for n in range(6)]
FIRST = Entry.of("target risk 0.1", ROWS[:4], "weights")


def test_rows_are_known_again_though_some_are_left_out() -> None:
    ledger = Ledger().with_entry(Path("run"), FIRST, again=False)
    for rows in (ROWS[1:4], ROWS[3:], ROWS):
        with pytest.raises(UserError, match=r"target risk 0\.1.*void the promise"):
            ledger.with_entry(Path("run"), Entry.of("target risk 0.2", rows, "weights"), False)
    fresh = Entry.of("target risk 0.2", ROWS[4:], "weights")
    assert ledger.with_entry(Path("run"), fresh, again=False).tries(fresh) == 1


def test_other_weights_on_the_same_rows_are_another_try() -> None:
    ledger = Ledger().with_entry(Path("run"), FIRST, again=False)
    retrained = Entry.of("target risk 0.1", ROWS[:4], "other weights")
    with pytest.raises(UserError, match="void the promise"):
        ledger.with_entry(Path("run"), retrained, again=False)
    assert ledger.with_entry(Path("run"), retrained, again=True).tries(retrained) == 2


def test_the_same_request_is_no_second_try_and_the_ledger_survives_storage() -> None:
    ledger = Ledger().with_entry(Path("run"), FIRST, again=False)
    assert ledger.with_entry(Path("run"), FIRST, again=False) == ledger
    assert Ledger.from_json(ledger.to_json()) == ledger and ledger.tries(FIRST) == 1


def test_a_corrected_row_is_a_fresh_one() -> None:
    corrected = [dataclasses.replace(row, content_hash="other") for row in ROWS[:4]]
    ledger = Ledger().with_entry(Path("run"), FIRST, again=False)
    assert not ledger.before(Entry.of("target risk 0.1", corrected, "weights"))
