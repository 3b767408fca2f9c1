"""TriviaQA: the official sample, and documents after the published layout."""

import json
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import SHARED, curate

from curate.errors import UserError
from curate.record import Row, read_rows
from curate.sources import triviaqa


def question(**fields: Any) -> dict[str, Any]:
    return {
        "Question": "Which Lloyd Webber musical opened in 1993?",
        "QuestionId": "tc_33",
        "Answer": {
            "Value": "Sunset Boulevard",
            "Aliases": ["Sunset Blvd.", "West Sunset Boulevard"],
        },
        "EntityPages": [{"Filename": "Lloyd.txt", "Title": "Andrew Lloyd Webber"}],
        "SearchResults": [
            {"Filename": "35/35_995.txt", "Title": "Shows", "Url": "http://example.org/shows"}
        ],
        **fields,
    }


def layout(folder: Path, *questions: dict[str, Any], **documents: str) -> Path:
    """``qa`` and ``evidence`` as the archive has them."""
    for name, text in documents.items():
        path = folder / "evidence" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    path = folder / "qa" / "web-dev.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"Data": list(questions), "Domain": "Web", "Version": 1.0}))
    return path


LLOYD = (
    "Andrew Lloyd Webber wrote music.\n\nThe film Sunset Boulevard is old. " + "More text. " * 200 +
    "\n\nIn 1993 the Lloyd Webber musical sunset boulevard opened in the US.\n" + "Rest. " * 400
)  # fmt: skip


def read(path: Path) -> list[Row]:
    return list(triviaqa.read(str(path), "trivia"))


def test_official_sample_is_read_row_for_row() -> None:
    path = SHARED / "triviaqa_sample.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    (value,) = json.loads(path.read_text())["Data"]
    (row,) = read(path)
    assert (row.question, row.source_id) == (value["Question"], value["QuestionId"])
    known = [value["Answer"]["Value"], *value["Answer"]["Aliases"]]
    assert row.answers == list(dict.fromkeys(known))
    # Its documents do not come with it: nobody can say whether they hold the answer.
    assert (row.context, row.sufficient) == ("", None)


def test_passage_with_an_answer_is_found_and_marked_as_distant_supervision(tmp_path: Path) -> None:
    path = layout(tmp_path, question(), **{"wikipedia/Lloyd.txt": LLOYD})
    (row,) = read(path)
    assert (row.sufficient, row.method, row.votes) == (
        True, "distant_supervision", {"answer_match": 1.0})  # fmt: skip
    # Two passages hold the answer: the one that shares more with the question is the better.
    assert "opened in the US" in row.context and len(row.context) <= 2_000
    assert row.answers == ["sunset boulevard"]
    assert row.context[row.answer_starts[0] :].startswith("sunset boulevard")
    assert (row.title, row.document_id) == ("Andrew Lloyd Webber", "trivia/Lloyd.txt")


def test_each_document_with_an_answer_gives_a_row(tmp_path: Path) -> None:
    shows = {"wikipedia/Lloyd.txt": LLOYD, "web/35/35_995.txt": "West Sunset Boulevard, 1993."}
    rows = read(layout(tmp_path, question(), **shows))
    assert [row.source_id for row in rows] == ["tc_33/Lloyd.txt", "tc_33/35/35_995.txt"]
    assert rows[1].answers == ["West Sunset Boulevard", "Sunset Boulevard"]
    assert (rows[1].url, len({row.id for row in rows})) == ("http://example.org/shows", 2)


def test_question_whose_documents_hold_no_answer_has_no_label(tmp_path: Path) -> None:
    path = layout(tmp_path, question(), **{"wikipedia/Lloyd.txt": "Lloyd Webber wrote Evita."})
    (row,) = read(path)
    assert (row.sufficient, row.votes) == (None, {"answer_match": 0.0})
    assert row.context == "Lloyd Webber wrote Evita." and row.answers[0] == "Sunset Boulevard"


def test_verified_documents_count_as_judged_by_people(tmp_path: Path) -> None:
    page = {"Filename": "Lloyd.txt", "Title": "L", "DocPartOfVerifiedEval": True}
    path = layout(tmp_path, question(EntityPages=[page]), **{"wikipedia/Lloyd.txt": LLOYD})
    assert [row.method for row in read(path)] == ["human"]


def test_evidence_may_lie_elsewhere_and_never_outside(tmp_path: Path) -> None:
    path = layout(tmp_path, question(), **{"wikipedia/Lloyd.txt": LLOYD})
    (tmp_path / "evidence").rename(tmp_path / "documents")
    assert [row.sufficient for row in read(path)] == [None]
    out = tmp_path / "o.parquet"
    done = curate("import", "triviaqa", path, "--evidence", tmp_path / "documents", "--out", out)
    assert done.returncode == 0, done.stderr
    assert [row.sufficient for row in read_rows(out)] == [True]
    with pytest.raises(UserError, match="there is no folder"):
        list(triviaqa.read(str(path), "t", evidence=str(tmp_path / "nowhere")))
    away = question(EntityPages=[{"Filename": "../../../etc/passwd", "Title": ""}])
    with pytest.raises(UserError, match="lies outside the evidence folder"):
        read(layout(tmp_path, away))


def test_hub_form_has_its_documents_in_the_row(tmp_path: Path) -> None:
    value = {
        "question": "Which musical opened in 1993?",
        "question_id": "tc_33",
        "answer": {"value": "Sunset Boulevard", "aliases": ["Sunset Blvd."]},
        "entity_pages": {"filename": ["Lloyd.txt"], "title": ["ALW"], "wiki_context": [LLOYD]},
        "search_results": {"filename": [], "title": [], "url": [], "search_context": []},
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(value))
    (row,) = triviaqa.read(f"hub:{tmp_path}", "trivia")
    assert row.sufficient and row.title == "ALW"


def test_what_is_no_triviaqa_is_named(tmp_path: Path) -> None:
    value = question()
    del value["Answer"]
    with pytest.raises(UserError, match=r"Data\[1\]: field 'Answer' is missing; .*TriviaQA"):
        read(layout(tmp_path, question(), value))
    (tmp_path / "x.json").write_text('{"data": []}')
    with pytest.raises(UserError, match="field 'Data' is missing"):
        read(tmp_path / "x.json")
