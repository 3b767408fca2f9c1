"""Natural Questions and NQ-open: after the published formats, and the real file."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import SHARED

from curate.errors import UserError
from curate.record import Row
from curate.sources import natural_questions, nq_open

# A page as the simplified file has it: tokens and tags, parted by spaces.
PAGE = """
<H1> Arden Mill </H1> <P> Arden Mill is a water mill in Corby , built in 1893 by Ada Low . </P>
<P> It has `` two '' wheels ( of oak ) and is n't open . </P> <Table> <Tr> <Th> Year </Th>
<Th> Owner </Th> </Tr> <Tr> <Td> 1901 </Td> <Td> Bea Fry </Td> </Tr> </Table>
<P> The keeper 's house burnt down , and was not built again . </P>
""".split()  # noqa: SIM905
ENDS = ("start_token", "end_token")
NOBODY = {"start_token": -1, "end_token": -1, "candidate_index": -1}


def span(first: str, last: str, start: int = 0) -> tuple[int, int]:
    begin = PAGE.index(first, start)
    return begin, PAGE.index(last, begin) + 1


PARAGRAPHS = [(n, PAGE.index("</P>", n) + 1) for n, token in enumerate(PAGE) if token == "<P>"]  # noqa: S105
TABLE = span("<Table>", "</Table>")
CANDIDATES = sorted([*PARAGRAPHS, TABLE])


def note(long: tuple[int, int] | None, *short: tuple[int, int], yes_no: str = "NONE") -> Any:
    tokens = dict(zip(ENDS, long, strict=True)) if long else NOBODY
    return {
        "annotation_id": 1,
        "yes_no_answer": yes_no,
        "long_answer": {**NOBODY, **tokens},
        "short_answers": [{"start_token": start, "end_token": end} for start, end in short],
    }


def simplified(*notes: Any, question: str = "when was arden mill built") -> dict[str, Any]:
    return {
        "example_id": 797803103760793766,
        "question_text": question,
        "document_text": " ".join(PAGE),
        "document_url": "https://en.wikipedia.org/wiki/Arden_Mill",
        "long_answer_candidates": [
            {"start_token": start, "end_token": end, "top_level": True} for start, end in CANDIDATES
        ],
        "annotations": list(notes),
    }


def original(*notes: Any, **fields: Any) -> dict[str, Any]:
    value = simplified(*notes, **fields)
    del value["document_text"]
    html = " ".join(PAGE)
    value["document_html"], value["document_title"] = html, "Arden Mill"
    value["document_tokens"] = [
        {"token": token, "html_token": token.startswith("<"), "start_byte": 0, "end_byte": 0}
        for token in PAGE
    ]
    return value


def on_the_hub(*notes: Any, **fields: Any) -> dict[str, Any]:
    value = simplified(*notes, **fields)
    return {
        "id": str(value["example_id"]),
        "document": {
            "title": "Arden Mill",
            "url": value["document_url"],
            "tokens": {"token": PAGE, "is_html": [token.startswith("<") for token in PAGE]},
        },
        "question": {"text": value["question_text"], "tokens": []},
        "long_answer_candidates": {
            "start_token": [start for start, _ in CANDIDATES],
            "end_token": [end for _, end in CANDIDATES],
            "top_level": [True] * len(CANDIDATES),
        },
        "annotations": {
            "id": ["1"] * len(notes),
            "long_answer": [one["long_answer"] for one in notes],
            "short_answers": [
                {
                    key: [s[key] for s in one["short_answers"]]
                    for key in ("start_token", "end_token")
                }
                for one in notes
            ],
            "yes_no_answer": [{"NO": 0, "YES": 1}.get(one["yes_no_answer"], -1) for one in notes],
        },
    }


def read(tmp_path: Path, *values: dict[str, Any]) -> list[Row]:
    path = tmp_path / "nq.jsonl"
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return list(natural_questions.read(str(path), "nq", "CC-BY-SA-3.0"))


YEAR = span("1893", "1893")
FIRST = PARAGRAPHS[0]


def check_row(row: Row) -> None:
    assert row.context == "Arden Mill is a water mill in Corby, built in 1893 by Ada Low."
    assert (row.answers, row.sufficient, row.reason) == (["1893"], True, "")
    assert row.context[row.answer_starts[0] :].startswith("1893")
    assert (row.question, row.votes) == ("when was arden mill built", {"annotators": 1.0})
    assert (row.source_id, row.licence) == ("797803103760793766", "CC-BY-SA-3.0")
    assert row.url.endswith("Arden_Mill")


def test_simplified_original_and_gzipped_lines_give_the_same_row(tmp_path: Path) -> None:
    (row,) = read(tmp_path, simplified(note(FIRST, YEAR)))
    check_row(row)
    (same,) = read(tmp_path, original(note(FIRST, YEAR)))
    check_row(same)
    assert (same.title, same.document_id) == ("Arden Mill", "nq/Arden Mill")
    packed = tmp_path / "nq.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(simplified(note(FIRST, YEAR))).encode()))
    (third,) = natural_questions.read(str(packed), "nq", "CC-BY-SA-3.0")
    check_row(third)
    assert third.id == row.id


def test_hub_form_gives_the_same_row(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(on_the_hub(note(FIRST, YEAR))))
    (row,) = natural_questions.read(f"hub:{tmp_path}", "nq", "CC-BY-SA-3.0")
    check_row(row)


def test_marks_quotes_and_tables_are_written_as_people_write_them(tmp_path: Path) -> None:
    rows = read(tmp_path, simplified(note(PARAGRAPHS[1])), simplified(note(TABLE)))
    assert rows[0].context == "It has “two” wheels (of oak) and isn't open."
    assert rows[1].context == "Year | Owner\n1901 | Bea Fry"
    assert [row.answers for row in rows] == [[row.context] for row in rows]  # long answers alone


def test_yes_and_no_are_answers_without_a_place(tmp_path: Path) -> None:
    (row,) = read(tmp_path, simplified(note(PARAGRAPHS[1], yes_no="NO"), question="is it open"))
    assert (row.answers, row.answer_starts, row.sufficient) == (["no"], [-1], True)


def test_question_that_nobody_answered_is_insufficient_with_the_nearest_passage(
    tmp_path: Path,
) -> None:
    asked = "who built the keeper's house again"
    (row,) = read(tmp_path, simplified(note(None), question=asked))
    assert (row.sufficient, row.reason, row.answers) == (False, "unlabelled", [])
    assert row.context == "The keeper's house burnt down, and was not built again."
    assert row.votes == {"annotators": 0.0}


@pytest.mark.parametrize(("found", "label"), [(5, True), (2, True), (1, None), (0, False)])
def test_label_is_that_of_the_official_evaluation(
    tmp_path: Path, found: int, label: bool | None
) -> None:
    notes = [note(FIRST, YEAR)] * found + [note(None)] * (5 - found)
    (row,) = read(tmp_path, simplified(*notes))
    assert (row.sufficient, row.votes) == (label, {"annotators": found / 5})


def test_most_frequent_answer_comes_first_and_others_of_the_passage_follow(tmp_path: Path) -> None:
    by = span("Ada", "Low")
    notes = [note(FIRST, YEAR), note(FIRST, by), note(FIRST, by), note(TABLE), note(None)]
    (row,) = read(tmp_path, simplified(*notes))
    assert row.answers == ["Ada Low", "1893"]
    for answer, start in zip(row.answers, row.answer_starts, strict=True):
        assert row.context[start : start + len(answer)] == answer


def test_page_without_passages_and_answers_of_tags_alone(tmp_path: Path) -> None:
    bare = simplified(note(None)) | {"long_answer_candidates": []}
    (row,) = read(tmp_path, bare)
    assert (row.context, row.sufficient, row.reason) == ("", False, "no_context")
    tag = PAGE.index("<P>")
    (row,) = read(tmp_path, simplified(note(FIRST, (tag, tag + 1))))
    assert (row.answers, row.sufficient) == ([], True)
    (row,) = read(tmp_path, simplified())
    assert (row.sufficient, row.votes) == (None, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_text": None}, "line 2.question_text: str is needed, found None"),
        ({"annotations": {}}, "line 2.annotations: list is needed"),
        (
            {"annotations": [{"short_answers": []}]},
            r"annotations\[0\]: field 'long_answer'",
        ),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, simplified(note(FIRST)), simplified(note(FIRST)) | change)


def test_gzip_that_is_cut_off_is_named(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(simplified(note(FIRST))).encode())
    (tmp_path / "nq.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"nq.jsonl.gz: not whole gzip"):
        list(natural_questions.read(str(tmp_path / "nq.jsonl.gz"), "nq"))


def test_nq_open_is_read_row_for_row(tmp_path: Path) -> None:
    path = SHARED / "nq-open.dev.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    values = [json.loads(line) for line in path.read_text().splitlines()]
    rows = list(nq_open.read(str(path), "nq-open"))
    assert [(row.question, row.answers) for row in rows] == [
        (value["question"], value["answer"]) for value in values
    ]
    assert {(row.sufficient, row.context) for row in rows} == {(None, "")}
    assert len(rows) > 3_000


def test_nq_open_without_answers_is_named(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text('{"question": "who", "answer": []}')
    with pytest.raises(UserError, match=r"line 1.answer: a list of texts is needed"):
        list(nq_open.read(str(tmp_path / "o.jsonl"), "o"))
