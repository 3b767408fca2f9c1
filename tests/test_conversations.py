"""CoQA and QuAC: each turn with the turns before it, after the published formats."""

import json
from pathlib import Path
from typing import Any

import pytest

from curate.errors import UserError
from curate.record import Row
from curate.sources import coqa, quac

STORY = "Ada keeps a mill in Corby. She bought it in 1901. Her dog is called Rex."


def coqa_turn(text: str, span: str = "") -> dict[str, Any]:
    start = STORY.index(span) if span else -1
    return {"input_text": text, "span_start": start, "span_end": start + len(span) if span else -1,
            "span_text": span or "unknown", "turn_id": 1}  # fmt: skip


COQA: dict[str, Any] = {
    "source": "wikipedia",
    "id": "3zotghdk5ibi9cex97fepx7jetpso7",
    "filename": "Corby.txt",
    "story": STORY,
    "questions": [
        {"input_text": "Who keeps the mill?", "turn_id": 1},
        {"input_text": "Where?", "turn_id": 2},
        {"input_text": "Is she old?", "turn_id": 3},
        {"input_text": "Does she have a dog?", "turn_id": 4},
    ],
    "answers": [
        coqa_turn("Ada", "Ada keeps a mill"),
        coqa_turn("in Corby", "a mill in Corby"),
        coqa_turn("unknown"),
        coqa_turn("Yes", "Her dog is called Rex"),
    ],
    "additional_answers": {
        "0": [coqa_turn("Ada", "Ada"), coqa_turn("Corby", "Corby"), coqa_turn("unknown"),
              coqa_turn("yes, Rex", "dog is called Rex")],
        "1": [coqa_turn("she", "Ada"), coqa_turn("Corby", "Corby"), coqa_turn("no"),
              coqa_turn("yes", "Rex")],
    },
}  # fmt: skip


def read_coqa(tmp_path: Path, *stories: dict[str, Any]) -> list[Row]:
    (tmp_path / "coqa.json").write_text(json.dumps({"version": "1.0", "data": stories}))
    return list(coqa.read(str(tmp_path / "coqa.json"), "coqa"))


def test_coqa_gives_a_row_a_turn_with_its_history(tmp_path: Path) -> None:
    first, second, third, fourth = read_coqa(tmp_path, COQA)
    assert (first.answers, first.history) == (["Ada", "she"], [])
    assert (second.answers, second.answer_starts) == (["in Corby", "Corby"], [17, 20])
    assert second.history == [
        {"role": "user", "content": "Who keeps the mill?"},
        {"role": "assistant", "content": "Ada"},
    ]
    assert [STORY[start:end] for start, end in second.evidence] == ["a mill in Corby"]
    assert (third.sufficient, third.reason, third.answers) == (False, "unlabelled", [])
    assert third.votes == {"annotators": pytest.approx(1 / 3, abs=1e-6)}
    assert fourth.history[-1] == {"role": "assistant", "content": "unanswerable"}
    assert (fourth.answers[0], fourth.answer_starts[0], fourth.sufficient) == ("Yes", -1, True)
    assert {row.document_id for row in (first, second, third, fourth)} == {
        "coqa/3zotghdk5ibi9cex97fepx7jetpso7"
    }
    assert len({row.id for row in (first, second, third, fourth)}) == 4


def test_coqa_of_the_hub_is_read(tmp_path: Path) -> None:
    answers = {"input_text": ["Ada", "unknown"], "answer_start": [0, -1], "answer_end": [3, -1]}
    value = {"source": "x", "story": STORY, "questions": ["Who?", "Why?"], "answers": answers}
    (tmp_path / "train.jsonl").write_text(json.dumps(value))
    rows = list(coqa.read(f"hub:{tmp_path}", "coqa"))
    assert [(row.sufficient, row.answers) for row in rows] == [(True, ["Ada"]), (False, [])]


def test_coqa_turns_without_an_answer_have_no_label(tmp_path: Path) -> None:
    rows = read_coqa(tmp_path, COQA | {"answers": COQA["answers"][:2], "additional_answers": {}})
    assert [row.sufficient for row in rows] == [True, True, None, None]


SECTION = "Ada was born in Corby. In 1901 she bought a mill."


def quac_turn(number: int, question: str, *spans: str) -> dict[str, Any]:
    context = f"{SECTION} CANNOTANSWER"
    answers = [{"text": text, "answer_start": context.index(text)} for text in spans]
    return {"id": f"C_1_q#{number}", "question": question, "followup": "y", "yesno": "x",
            "answers": answers, "orig_answer": answers[0] if answers else None}  # fmt: skip


QUAC = {
    "title": "Ada Low",
    "section_title": "Life",
    "background": "Ada Low kept a mill.",
    "paragraphs": [
        {
            "id": "C_1",
            "context": f"{SECTION} CANNOTANSWER",
            "qas": [
                quac_turn(0, "Where was she born?", "Ada was born in Corby", "Corby"),
                quac_turn(1, "Did she marry?", "CANNOTANSWER", "CANNOTANSWER", "CANNOTANSWER"),
                quac_turn(2, "What did she buy?", "a mill", "CANNOTANSWER"),
            ],
        }
    ],
}


def read_quac(tmp_path: Path, article: dict[str, Any]) -> list[Row]:
    (tmp_path / "quac.json").write_text(json.dumps({"data": [article]}))
    return list(quac.read(str(tmp_path / "quac.json"), "quac"))


def check_quac(rows: list[Row]) -> None:
    assert [(row.sufficient, row.answers) for row in rows] == [
        (True, ["Ada was born in Corby", "Corby"]),
        (False, []),
        (True, ["a mill"]),
    ]
    assert {row.context for row in rows} == {SECTION}
    for row in rows:
        for answer, start in zip(row.answers, row.answer_starts, strict=True):
            assert row.context[start : start + len(answer)] == answer
    said = [turn["content"] for turn in rows[2].history]
    assert said[1::2] == ["Ada was born in Corby", "unanswerable"]
    assert (rows[0].document_id, rows[0].title) == ("quac/Ada Low", "Ada Low")
    assert [row.source_id for row in rows] == ["C_1_q#0", "C_1_q#1", "C_1_q#2"]


def test_quac_gives_a_row_a_turn_with_its_history(tmp_path: Path) -> None:
    rows = read_quac(tmp_path, QUAC)
    check_quac(rows)
    assert [row.votes["annotators"] for row in rows] == [1.0, 0.0, 0.5]
    assert rows[0].heading == "Life"


def test_quac_of_the_hub_is_read(tmp_path: Path) -> None:
    turns = QUAC["paragraphs"][0]["qas"]  # type: ignore[index]
    value = {
        "dialogue_id": "C_1",
        "wikipedia_page_title": "Ada Low",
        "section_title": "Life",
        "context": f"{SECTION} CANNOTANSWER",
        "turn_ids": [turn["id"] for turn in turns],
        "questions": [turn["question"] for turn in turns],
        "answers": {
            "texts": [[a["text"] for a in turn["answers"]] for turn in turns],
            "answer_starts": [[a["answer_start"] for a in turn["answers"]] for turn in turns],
        },
        "orig_answers": {
            "texts": [turn["orig_answer"]["text"] for turn in turns],
            "answer_starts": [turn["orig_answer"]["answer_start"] for turn in turns],
        },
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(value))
    check_quac(list(quac.read(f"hub:{tmp_path}", "quac")))


def test_wrong_turns_are_named_with_their_place(tmp_path: Path) -> None:
    broken = json.loads(json.dumps(QUAC))
    del broken["paragraphs"][0]["qas"][1]["question"]
    with pytest.raises(UserError, match=r"data\[0\].paragraphs\[0\].qas\[1\]: field 'question'"):
        read_quac(tmp_path, broken)
    with pytest.raises(UserError, match=r"data\[1\].story: str is needed"):
        read_coqa(tmp_path, COQA, COQA | {"story": 3})
