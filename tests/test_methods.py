"""Every method that needs no model: what it makes, of what, and what it leaves alone."""

from typing import get_args

import pytest
from curate_helpers import ROOT, derived_from, make_row, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import context_id
from curate.insufficient.mentions import alike, mentions
from curate.insufficient.methods import MAKERS, usable
from curate.insufficient.negated import make as negate
from curate.recipe import InsufficientSettings, Method
from curate.record import Passage, Row
from curate.text import holds_any
from curate.variants import canonical, holds_variant

CASTLE = (
    "Arden Castle was built in 1432 by Hugo Mason. It rained for a year. In 1518 Lady Margaret "
    "Corby sold the castle to the Duke of York for £900. The tower fell in 1601."
)


def made_of(row: Row, method: str, *passages: str) -> Row:
    """The single row that a method makes of another."""
    others = [Passage(text, f"p{n}", context_id(text), row.fold) for n, text in enumerate(passages)]
    (made,) = derived_from([row], (method,), passages=others).rows
    assert made.method == method and made.parent_id == row.id
    return made


def test_every_method_has_its_name_in_the_recipe() -> None:
    assert set(get_args(Method)) == set(MAKERS)


def test_the_page_about_the_methods_names_them_all() -> None:
    page = (ROOT / "docs" / "insufficient.md").read_text(encoding="utf-8")
    assert [name for name in MAKERS if f"`{name}`" not in page] == []


def test_truncated_keeps_the_longer_side_of_the_evidence() -> None:
    row = make_row("Who bought it?", CASTLE, ["Duke of York"])
    made = made_of(row, "truncated")
    assert made.context == "Arden Castle was built in 1432 by Hugo Mason. It rained for a year."
    assert made.intensity == pytest.approx(1 - len(made.context) / len(CASTLE), abs=1e-6)
    first = make_row("Who built it?", CASTLE, ["Hugo Mason"])
    assert made_of(first, "truncated").context == CASTLE[CASTLE.index("It rained") :]
    only = make_row("Who?", "Ada left.", ["Ada"])
    assert reasons(derived_from([only], ("truncated",))) == [("truncated", "no_candidate")]


def test_partial_evidence_takes_away_the_supporting_passage_with_the_answer() -> None:
    passages = ["Arden\nArden lies in Corby.", "Rain\nIt rained.", "Corby\nIts mayor is Ada Low."]
    context = "\n\n".join(passages)
    spans = [(context.index(text), context.index(text) + len(text)) for text in
             ("Arden lies in Corby.", "Its mayor is Ada Low.")]  # fmt: skip
    row = make_row("Who is mayor of Arden's town?", context, ["Ada Low"], evidence=spans)
    made = made_of(row, "partial_evidence")
    assert made.context == "\n\n".join(passages[:2])
    assert (made.reason, made.intensity) == ("partial_evidence", 0.5)
    one = make_row("Who?", context, ["Ada Low"], evidence=spans[1:])
    assert reasons(derived_from([one], ("partial_evidence",)))[0][1] == "no_candidate"


NOISE = tuple(
    f"Gate {n} of the castle was painted {c}." for n, c in enumerate(("red", "blue", "grey"))
)


def test_noise_passages_have_a_sufficient_twin_among_distractors() -> None:
    row = make_row("Who built Arden Castle with a gate?", CASTLE, ["Hugo Mason"])
    others = [Passage(text, text, context_id(text), "train") for text in NOISE]
    both = derived_from([row], ("noise_passages", "distracted"), passages=others, share=0.6).rows
    noise, distracted = both
    assert sorted(noise.context.split("\n\n")) == sorted(NOISE)
    assert (noise.sufficient, noise.reason) == (False, "irrelevant_context")
    assert (distracted.sufficient, distracted.reason, distracted.method) == (True, "", "distracted")
    assert len(distracted.context.split("\n\n")) == 3 and CASTLE in distracted.context
    (answer,), (start,) = distracted.answers, distracted.answer_starts
    assert distracted.context[start : start + len(answer)] == answer == "Hugo Mason"


def test_a_name_gives_way_to_another_of_the_same_context() -> None:
    row = make_row("When did Lady Margaret Corby sell it?", CASTLE, ["1518"])
    made = made_of(row, "entity_swapped")
    assert made.context == CASTLE and made.reason == "false_premise" and made.intensity == 1.0
    assert made.question in {
        f"When did {name} sell it?" for name in ("Arden Castle", "Hugo Mason", "Duke of York")
    }
    assert (made.sufficient, made.answers) == (False, [])


def test_a_swap_that_the_context_answers_is_not_made() -> None:
    context = "Ann Low joined in 1990. Bob Ray joined in 1991."
    row = make_row("When did Ann Low join?", context.replace("joined", "did join"), ["1990"])
    result = derived_from([row], ("entity_swapped",))
    assert result.rows == [] and reasons(result) == [("entity_swapped", "no_candidate")]


def test_a_year_gives_way_to_another() -> None:
    row = make_row("Who was the heir of Hugo Mason in 1432?", CASTLE, ["Lady Margaret Corby"])
    made = made_of(row, "number_swapped")
    assert made.question in {f"Who was the heir of Hugo Mason in {year}?" for year in (1518, 1601)}
    assert made.intensity == 1.0
    # What stands beside the other years is too near the question for any of them.
    near = make_row("Who built Arden Castle in 1432?", CASTLE, ["Hugo Mason"])
    assert made_of(near, "number_swapped").intensity == 0.75
    compared = make_row("Who built Arden Castle before 1433?", CASTLE, ["Hugo Mason"])
    assert derived_from([compared], ("number_swapped",)).rows == []
    alone = make_row("Who came in 1950?", "In 1950 Ada came.", ["Ada"])
    made = made_of(alone, "number_swapped")
    year = int(made.question.split()[-1].rstrip("?"))
    assert 1951 < year < 1960 and made.intensity == 0.75


@pytest.mark.parametrize(
    ("question", "edited"),
    [
        ("When was it built?", None),
        ("Where was it built?", "Where wasn't it built?"),
        ("What did Ann buy?", "What didn't Ann buy?"),
        ("Is it open?", None),
        ("Who wrote it?", "Who never wrote it?"),
        ("Which king ruled first?", "Which king never ruled first?"),
        ("What entity enforces it?", None),
        ("How much was sold?", None),
        ("What was not sold?", None),
        ("How many people live there?", None),
    ],
)
def test_questions_are_negated_in_place(question: str, edited: str | None) -> None:
    row = make_row(question, CASTLE, ["1432"])
    found = negate(row, None)  # type: ignore[arg-type]
    assert (found.question if found is not None else None) == edited


def test_a_word_gives_way_to_its_opposite() -> None:
    row = make_row("Who first sold the castle?", CASTLE, ["Lady Margaret Corby"])
    assert made_of(row, "antonym").question in {
        "Who last sold the castle?",
        "Who first bought the castle?",
    }
    none = make_row("Who built it?", "Hugo left it.", ["Hugo"])
    assert made_of(none, "antonym").question == "Who demolished it?"


def test_a_false_premise_is_about_what_the_context_names() -> None:
    row = make_row("Who built it?", CASTLE, ["Hugo Mason"])
    made = made_of(row, "false_premise")
    assert any(name in made.question for name in ("Arden Castle", "Hugo Mason", "Duke of York"))
    assert made.votes == {"premise_supported": 0.0}


def test_an_underspecified_question_stands_alone() -> None:
    row = make_row("When was Arden Castle built?", CASTLE, ["1432"])
    made = made_of(row, "underspecified")
    assert not mentions(made.question) and made.reason == "underspecified"
    turns = [{"role": "user", "content": "Tell me of Arden Castle."}]
    within = make_row("When was it built?", CASTLE, ["1432"], history=turns)
    assert derived_from([within], ("underspecified",)).rows == []


@pytest.mark.parametrize(
    ("context", "answer", "held"),
    [
        ("It has twenty-one gates.", "21 gates", True),
        ("It cost 3 million pounds.", "3,000,000 pounds", True),
        ("two hundred and five men came", "205 men", True),
        ("It opened on 3 May 1990.", "May 3, 1990", True),
        ("It opened on the 3rd of May 1990.", "1990-05-03", True),
        ("He was the fifth king.", "5th king", True),
        ("They painted the gates.", "painting the gate", True),
        ("It opened on 4 May 1990.", "May 3, 1990", False),
        ("It has twenty gates and one door.", "21 gates", False),
        ("It opened in 1990.", "1991", False),
    ],
)
def test_an_answer_is_known_in_its_other_forms(context: str, answer: str, held: bool) -> None:
    assert holds_variant(context, [answer]) is held


@given(st.text(max_size=60))
def test_the_one_form_of_a_text_holds_the_text_itself(text: str) -> None:
    assert not canonical(text) or holds_variant(f"before {text} behind", [text])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("When did Lady Margaret Corby leave York?", ["name Lady Margaret Corby", "name York"]),
        ("In 1432 the Duke of York paid £9 million.", ["year 1432", "name Duke of York",
                                                      "money £9 million"]),
        ("On 3 May 1990, 12 % of them left.", ["date 3 May 1990", "percent 12 %"]),
        ("The What Who 1,200", ["number 1,200"]),
    ],
)  # fmt: skip
def test_names_and_numbers_are_found_with_their_kind(text: str, found: list[str]) -> None:
    assert [f"{mention.kind} {mention.text}" for mention in mentions(text)] == found
    for mention in mentions(text):
        assert text[mention.start : mention.end] == mention.text
        assert alike(mention, mention)


TOWNS = ["Arden", "Bexley", "Corby", "Derry"]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 99), st.randoms())
def test_all_methods_together_are_honest_and_do_not_hang_on_the_order_of_rows(
    count: int, seed: int, shuffled: object
) -> None:
    rows = []
    for n in range(count):
        town = TOWNS[n % 4]
        context = (
            f"{town} Castle {n} was built in {1400 + n} by Hugo {town} Mason. It rained there. "
            f"The gate number {n + 30} was sold by Ann {town} Low. It is old."
        )
        rows += [
            make_row(f"Who built {town} Castle {n} in {1400 + n}?", context, [f"Hugo {town} Mason"],
                     f"d{n}"),
            make_row(f"Who first sold the gate of {town} Castle {n}?", context, [f"Ann {town} Low"],
                     f"d{n}"),
        ]  # fmt: skip
    methods = tuple(usable(InsufficientSettings()))
    result = derived_from(rows, methods, share=0.7, seed=seed)
    by_id = {row.id: row for row in rows}
    for made in result.rows:
        parent = by_id[made.parent_id]
        if made.sufficient:
            answers = zip(made.answers, made.answer_starts, strict=True)
            assert all(made.context[s : s + len(a)] == a for a, s in answers)
        elif made.question == parent.question:
            assert not holds_any(made.context, parent.answers)
        else:
            assert made.context == parent.context and made.votes.get("premise_supported") == 0.0
        assert 0 <= made.intensity <= 1 and made.content_hash == made.current_content_hash()
    again = list(rows)
    shuffled.shuffle(again)  # type: ignore[attr-defined]
    other = derived_from(again, methods, share=0.7, seed=seed)
    assert {row.id: row for row in other.rows} == {row.id: row for row in result.rows}
