"""Coefficients of agreement, Dawid and Skene's model, and what several people's word comes to."""

import math
import random
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import make_row
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import record
from curate.annotate import agreement, annotations, measure, second_pass
from curate.annotate.adjudicate import adjudicate, disputed, pseudonym
from curate.annotate.annotations import Annotation
from curate.annotate.dawid_skene import dawid_skene
from curate.annotate.said import Said

# Fleiss (1971), table 1: how many of 6 psychiatrists gave each of 30 patients one of 5 diagnoses.
FLEISS = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
_people = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["yes", "no", "bad"]))
_judged = st.dictionaries(st.integers(0, 40).map(str), _people, max_size=25)


def test_fleiss_kappa_is_that_of_the_published_table() -> None:
    judged: dict[str, dict[str, str]] = {}
    for number, digits in enumerate(FLEISS.split()):
        said = [str(label) for label, count in enumerate(digits) for _ in range(int(count))]
        judged[str(number)] = {str(person): label for person, label in enumerate(said)}
    counts = [list(map(int, digits)) for digits in FLEISS.split()]
    assert round(fleiss(counts), 3) == 0.430
    found = agreement.intervals(judged, {thing: thing for thing in judged})
    assert found["fleiss_kappa"]["value"] == pytest.approx(fleiss(counts), abs=1e-12)
    low, high = found["fleiss_kappa"]["low"], found["fleiss_kappa"]["high"]
    assert low is not None and high is not None and low < fleiss(counts) < high


def fleiss(counts: list[list[int]]) -> float:
    """Kappa from the paper's formulas."""
    n, raters = len(counts), sum(counts[0])
    each = [(sum(c * c for c in row) - raters) / (raters * (raters - 1)) for row in counts]
    shares = [sum(column) / (n * raters) for column in zip(*counts, strict=True)]
    expected = sum(share * share for share in shares)
    return (sum(each) / n - expected) / (1 - expected)


@settings(max_examples=60, deadline=None)
@given(_judged)
def test_share_and_alpha_are_those_of_their_definitions(judged: dict[str, dict[str, str]]) -> None:
    several = [list(said.values()) for said in judged.values() if len(said) > 1]
    pairs = [a == b for said in several for a, b in combinations(said, 2)]
    found = agreement.agreement(judged)
    assert found.things == len(several)
    assert found.share == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    values = Counter(value for said in several for value in said)
    if len(values) < 2:
        assert found.alpha is None
        return
    n = values.total()
    observed = sum(
        2 * sum(a != b for a, b in combinations(said, 2)) / (len(said) - 1) for said in several
    )
    expected = sum(values[a] * values[b] for a in values for b in values if a != b) / (n - 1)
    assert found.alpha == pytest.approx(1 - observed / expected)


@settings(max_examples=40, deadline=None)
@given(_judged)
def test_cohens_kappa_of_each_pair(judged: dict[str, dict[str, str]]) -> None:
    for a, b, count, kappa in agreement.of_pairs(judged):
        both = [(said[a], said[b]) for said in judged.values() if a in said and b in said]
        assert count == len(both)
        observed = sum(x == y for x, y in both) / count
        first, second = Counter(x for x, _ in both), Counter(y for _, y in both)
        expected = sum(first[label] * second[label] for label in first) / count**2
        if math.isclose(expected, 1):
            assert kappa is None
        else:
            assert kappa == pytest.approx((observed - expected) / (1 - expected))


def crowd(count: int, seed: int = 5) -> tuple[dict[str, bool], dict[str, dict[str, bool]]]:
    """Rows' truth, and what five people say of some of them, each right as often as here."""
    draw = random.Random(seed)
    right = {"a": 0.95, "b": 0.9, "c": 0.75, "d": 0.6, "e": 0.55}
    truth = {str(n): draw.random() < 0.6 for n in range(count)}
    return truth, {
        row: {
            person: label == (draw.random() < share)
            for person, share in right.items()
            if draw.random() < 0.8
        }
        for row, label in truth.items()
    }


def slow_em(said: dict[str, dict[str, bool]], gold: dict[str, bool]) -> dict[str, float]:
    """Dawid and Skene's iteration written out, beginning with the shares of votes."""
    p = {row: sum(by.values()) / len(by) for row, by in said.items()}
    p |= {row: float(label) for row, label in gold.items() if row in said}
    for _ in range(100):
        prior = sum(p.values()) / len(p)
        hit: dict[tuple[str, bool], float] = {}
        for person in "abcde":
            own = [(p[row], by[person]) for row, by in said.items() if person in by]
            yes, no = sum(q for q, _ in own), sum(1 - q for q, _ in own)
            hit[person, True] = sum(q for q, v in own if v) / yes
            hit[person, False] = sum(1 - q for q, v in own if not v) / no
        for row, by in said.items():
            if row in gold:
                continue
            yes, no = prior, 1 - prior
            for person, value in by.items():
                yes *= hit[person, True] if value else 1 - hit[person, True]
                no *= 1 - hit[person, False] if value else hit[person, False]
            p[row] = yes / (yes + no)
    return p


@pytest.mark.parametrize("known", [0, 60])
def test_dawid_and_skene_as_a_slow_version_has_it_and_better_than_counting(known: int) -> None:
    truth, said = crowd(400)
    said = {row: by for row, by in said.items() if by}
    gold = {row: truth[row] for row in list(said)[:known]}
    found = dawid_skene(said, gold)
    slow = slow_em(said, gold)
    assert max(abs(found.suffices[row] - slow[row]) for row in said) < 0.01
    counted = sum((2 * sum(by.values()) > len(by)) == truth[row] for row, by in said.items())
    modelled = sum((found.suffices[row] > 0.5) == truth[row] for row in said)
    assert modelled > counted
    assert found.sensitivity["a"] > 0.85 > 0.75 > found.sensitivity["e"]  # type: ignore[operator]


def test_where_all_always_say_the_same_the_model_believes_them_but_for_what_is_known() -> None:
    said = {"a": {"p": True, "q": True}, "b": {"p": True, "q": True}, "c": {"q": True}}
    found = dawid_skene(said, {"b": False})
    assert found.suffices == {"a": 1.0, "b": 0.0, "c": 1.0}
    assert found.sensitivity == {"p": 1.0, "q": 1.0}
    assert found.specificity == {"p": 0.0, "q": 0.0}
    assert dawid_skene(said, {}).specificity == {"p": None, "q": None}


def test_an_interval_of_fleiss_kappa_is_of_one_number_of_raters() -> None:
    # 51 things that two people judged by the toss of a coin, 49 on which three agree.
    judged: dict[str, dict[str, str]] = {}
    draw = random.Random(1)
    for n in range(100):
        same = draw.choice(["yes", "no"])
        if n < 51:
            judged[str(n)] = {"a": same, "b": draw.choice(["yes", "no"])}
        else:
            judged[str(n)] = dict.fromkeys("abc", same)
    found = agreement.intervals(judged, {thing: thing for thing in judged})["fleiss_kappa"]
    assert found["high"] is not None and found["high"] < 0.6


def test_each_reason_and_the_answers_are_measured_apart() -> None:
    rows = [make_row(f"Who is {n}?", f"It is Ann or Ben, {n}.", ["Ann"]) for n in range(4)]
    ann, ben, bad = (("Ann", 6),), (("Ben", 13),), Said(None, bad=True)
    said = {
        "p": [Said(True, ann), Said(True, ann), Said(False, (), "false_premise"), bad],
        "q": [Said(True, ann), Said(True, ben), Said(False, (), "underspecified"), Said(True, ann)],
    }  # fmt: skip
    found = measure.measure(
        [
            Annotation(row, person, one, "2026-01-01", 3.0)
            for person, all_ in said.items()
            for row, one in zip(rows, all_, strict=True)
        ],
        {rows[0].id: rows[0], rows[1].id: rows[1]},
    )
    assert found.label["share"]["value"] == pytest.approx(3 / 4)
    assert found.answers is not None and found.answers["value"] == 0.5
    assert found.reasons["false_premise"]["share"]["value"] == 0
    p, q = found.annotators
    assert (p.known, p.right, q.right, q.seconds) == (2, 2, 1, 3.0)


def decided(*said: Said, label: bool | None = None, **more: Any) -> Any:
    row = make_row("Who is it?", "It is Ann, says Ben.", ["Ann"] if label else [], sufficient=label)
    people = {str(n): one for n, one in enumerate(said)}
    return adjudicate({row.id: row}, {row.id: people}, "annotate", **more), row


def test_most_decide_and_what_the_others_said_stays_as_a_vote() -> None:
    ann, ben = Said(True, (("Ann", 6),)), Said(True, (("Ben", 16),))
    no = Said(False, reason="false_premise")
    found, _ = decided(ann, ann, ben, no)
    (row,) = found.rows
    assert (row.sufficient, row.answers, row.answer_starts) == (True, ["Ann", "Ben"], [6, 16])
    assert row.votes[f"worker:{pseudonym('3')}"] == 0 and len(row.votes) == 4
    assert decided(ann, no)[0].counts == {"undecided": 1}
    assert decided(Said(True))[0].rows[0].sufficient is None  # nobody says what
    assert decided(Said(True), label=True)[0].counts == {"confirmed": 1}
    assert decided(no, label=True)[0].rows[0].reason == "false_premise"
    bad = Said(None, bad=True, comment="gibberish")
    for divided in ((bad, ann), (bad, bad, no, no)):
        assert decided(*divided)[0].counts == {"undecided": 1}
    (dropped,) = decided(bad, bad, ann)[0].dropped
    assert dropped.drop_reason == "question_makes_no_sense" and "gibberish" in dropped.detail


def test_a_second_pass_or_a_model_of_the_people_overrules_the_count() -> None:
    ann, no = Said(True, (("Ann", 6),)), Said(False)
    row = make_row("Who is it?", "It is Ann, says Ben.", sufficient=None)
    said = {row.id: {"p": ann, "q": ann, "r": no}}
    (first,) = adjudicate({row.id: row}, said, "s", weighed={row.id: 0.1}).rows
    assert first.sufficient is False and first.reason == "unlabelled"
    chief = {row.id: {"chief": no}}
    (second,) = adjudicate({row.id: row}, said, "s", decided=chief).rows
    assert second.sufficient is False and len(second.votes) == 4
    assert disputed(said[row.id]) and not disputed({"p": ann, "q": ann})
    assert disputed({"p": ann, "q": Said(True, (("Ben", 16),))})


def test_known_rows_that_were_mixed_in_are_not_missed_among_those_written(tmp_path: Path) -> None:
    known, ours = (make_row(f"Who is {n}?", f"It is Ann, {n}.", ["Ann"]) for n in range(2))
    no, yes = Said(False), Said(True, (("Ann", 6),))
    found = [
        Annotation(row, person, said, "2026-01-01", 3.0)
        for row, person, said in ((known, "p", yes), (ours, "p", yes), (ours, "q", no))
    ]
    annotations.write(found, tmp_path / "said.parquet")
    record.write_table(record.to_table([ours]), tmp_path / "rows.parquet")
    counts = second_pass.settle(
        *(tmp_path / "said.parquet", tmp_path / "out.parquet", "majority", None),
        *(tmp_path / "rows.parquet", {known.id: known}),
    )
    assert counts["labels"] == {"undecided": 1}


def test_whoever_is_overruled_is_kept_as_dissent(tmp_path: Path) -> None:
    senseless, renamed = (make_row(f"Who is {n}?", f"It is Ann or Ben, {n}.") for n in range(2))
    bad, ann, ben = Said(None, bad=True), Said(True, (("Ann", 6),)), Said(True, (("Ben", 13),))
    said = [
        (senseless, "p", bad),
        (senseless, "q", bad),
        (senseless, "r", ann),
        (renamed, "p", ann),
    ]
    files = [tmp_path / name for name in ("said.parquet", "out.parquet", "second.parquet")]
    annotations.write([Annotation(*one, "2026-01-01", 3.0) for one in said], files[0])
    annotations.write([Annotation(renamed, "chief", ben, "2026-01-02", 3.0)], files[2])
    second_pass.settle(files[0], files[1], "majority", files[2], None, {})
    dissent = annotations.read(files[1].with_suffix(".dissent.parquet"))
    assert [(one.row.id, one.annotator) for one in dissent] == [
        (senseless.id, "r"),
        (renamed.id, "p"),
    ]
