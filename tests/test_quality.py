"""The figures of a report, on rows made so that each is known."""

from curate_helpers import make_row

from curate import quality
from curate.record import Dropped

CONTEXT = "Ada Low left Rome on 3 May 1990 with £900. It was a long and tiring day for her."


def test_repeated_questions_are_told_by_what_they_disagree_on() -> None:
    rows = [
        make_row("Who left?", CONTEXT, ["Ada Low"], source_id="1"),
        make_row("who left", CONTEXT, ["Ada"], source_id="2"),
        make_row("When?", CONTEXT, ["1990"], source_id="3"),
        make_row("When?", CONTEXT, source_id="4"),
        make_row("When?", "Another day.", source_id="5"),
    ]
    found = quality.consistency(rows)
    assert (found["questions_repeated"], found["other_label_count"]) == (2, 1)
    assert found["other_label"] == [[rows[2].id, rows[3].id]]
    assert found["other_answer"] == [[rows[0].id, rows[1].id]]


def test_spans_and_votes_are_counted_with_what_was_refused() -> None:
    right = make_row("Who?", CONTEXT, ["Ada Low"], votes={"judge:a": 1.0})
    wrong = make_row("When?", CONTEXT, ["1990"], answer_starts=[3])
    no_span = make_row("Did she?", CONTEXT, ["yes"], answer_starts=[-1])
    assert quality.spans([right, wrong, no_span]) == {"spans": 2, "spans_right": 1}
    refused = make_row("Why?", CONTEXT, votes={"judge:a": 0.9})
    dropped = [Dropped(refused, "insufficient", "verifiers_disagree"),
               Dropped(refused, "insufficient", "exact_duplicate")]  # fmt: skip
    found = quality.quality({"train": [right]}, dropped=dropped)
    assert found["accuracy"]["votes"] == {"judge:a": {"cast": 2, "agree": 1}}


def test_answers_and_questions_are_counted_by_their_kind() -> None:
    kinds = {
        "Ada Low": "name",
        "on 3 May 1990": "date",
        "£900": "number",
        "Yes": "yes or no",
        "a long day": "phrase",
        "a long and tiring day for her": "clause",
    }
    assert {answer: quality.answer_type(answer) for answer in kinds} == kinds
    rows = [make_row("Who left?", CONTEXT, ["Ada Low"]), make_row("Did she leave?", CONTEXT)]
    found = quality.coverage(rows)
    assert found["question_types"] == {"who": 1, "yes or no": 1}
    assert found["words"]["question"]["median"] in (2, 3)
    assert quality.diversity(rows)["questions_per_context"] == 2.0
