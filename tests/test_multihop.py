"""HotpotQA and MuSiQue as their files have them, and as the hub has them."""

import json
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import derived_from

from curate.errors import UserError
from curate.sources import table

HOTPOT: dict[str, Any] = {
    "_id": "5a8b",
    "question": "Who is mayor of the town where Arden Mill lies?",
    "answer": "Ada Low",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Arden Mill", 0], ["Corby", 1]],
    "context": [
        ["Ada Low", ["Ada Low wrote songs.", " She sang."]],
        ["Arden Mill", ["Arden Mill lies in Corby.", " It is old."]],
        ["Corby", ["Corby has a river.", " Its mayor is Ada Low."]],
    ],
}
MUSIQUE: dict[str, Any] = {
    "id": "2hop__1_2",
    "question": "Who is mayor of the town where Arden Mill lies?",
    "answer": "Ada Low",
    "answer_aliases": ["Mrs Low"],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "Arden", "paragraph_text": "Arden Mill lies in Corby.",
         "is_supporting": True},
        {"idx": 1, "title": "Rain", "paragraph_text": "It rained.", "is_supporting": False},
        {"idx": 2, "title": "Corby", "paragraph_text": "Its mayor is Ada Low.",
         "is_supporting": True},
    ],
}  # fmt: skip


def test_hotpot_is_read_with_its_supporting_sentences(tmp_path: Path) -> None:
    (tmp_path / "hotpot.json").write_text(json.dumps([HOTPOT]))
    (row,) = table.read(str(tmp_path / "hotpot.json"), "hotpot")
    assert [row.context[start:end] for start, end in row.evidence] == [
        "Arden Mill lies in Corby.",
        " Its mayor is Ada Low.",
    ]
    assert row.source_id == "5a8b" and row.answers == ["Ada Low"]
    # The answer that counts is the one in a supporting sentence, not the title before it.
    assert row.answer_starts == [row.context.index("Ada Low", row.context.index("Its mayor"))]
    assert row.context.startswith("Ada Low\nAda Low wrote songs. She sang.\n\nArden Mill\n")


def test_hotpot_from_the_hub_is_the_same_row(tmp_path: Path) -> None:
    columns = {
        **{key: value for key, value in HOTPOT.items() if key != "_id"},
        "id": "5a8b",
        "supporting_facts": {"title": ["Arden Mill", "Corby"], "sent_id": [0, 1]},
        "context": {
            "title": [title for title, _ in HOTPOT["context"]],
            "sentences": [sentences for _, sentences in HOTPOT["context"]],
        },
    }
    (tmp_path / "hub.jsonl").write_text(json.dumps(columns) + "\n")
    (tmp_path / "file.json").write_text(json.dumps([HOTPOT]))
    (one,) = table.read(str(tmp_path / "hub.jsonl"), "hotpot")
    (other,) = table.read(str(tmp_path / "file.json"), "hotpot")
    assert one == other


def test_yes_is_no_span_and_facts_behind_the_end_are_passed_over(tmp_path: Path) -> None:
    odd = {**HOTPOT, "answer": "yes", "supporting_facts": [["Corby", 1], ["Corby", 9]]}
    (tmp_path / "odd.json").write_text(json.dumps([odd]))
    (row,) = table.read(str(tmp_path / "odd.json"), "hotpot")
    no = {
        **HOTPOT,
        "answer": "no",
        "context": [["North", ["It is known.", "No."]], *HOTPOT["context"]],
    }
    (tmp_path / "no.json").write_text(json.dumps([no]))
    (other,) = table.read(str(tmp_path / "no.json"), "hotpot")
    assert other.answer_starts == [-1]
    assert (row.answers, row.answer_starts, len(row.evidence)) == (["yes"], [-1], 1)


def test_a_fact_about_no_passage_is_named(tmp_path: Path) -> None:
    wrong = {**HOTPOT, "supporting_facts": [["Derry", 0]]}
    (tmp_path / "wrong.json").write_text(json.dumps([HOTPOT, wrong]))
    with pytest.raises(UserError, match=r"wrong.json: item 2: .*Derry"):
        list(table.read(str(tmp_path / "wrong.json"), "hotpot"))


def test_musique_has_aliases_and_honest_contrast_rows(tmp_path: Path) -> None:
    lacking = {**MUSIQUE, "answerable": False, "id": "2hop__1_2b"}
    lines = "\n".join(map(json.dumps, [MUSIQUE, lacking]))
    (tmp_path / "musique.jsonl").write_text(lines)
    row, contrast = table.read(str(tmp_path / "musique.jsonl"), "musique")
    assert row.answers == ["Ada Low", "Mrs Low"] and row.answer_starts[1] == -1
    assert row.context[row.answer_starts[0] :].startswith("Ada Low")
    assert len(row.evidence) == 2 and row.sufficient
    assert (contrast.sufficient, contrast.reason) == (False, "partial_evidence")
    assert (contrast.answers, contrast.evidence) == ([], [])
    row.fold = "train"
    (made,) = derived_from([row], ("partial_evidence",)).rows
    assert made.reason == "partial_evidence" and "mayor" not in made.context


def test_a_list_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text('{"data": []}')
    with pytest.raises(UserError, match="a SQuAD file is `kind: squad`"):
        list(table.read(str(tmp_path / "squad.json"), "x"))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="item 1: an object is needed"):
        list(table.read(str(tmp_path / "list.json"), "x"))


def test_a_question_and_its_twin_that_lacks_a_passage_are_one_document(tmp_path: Path) -> None:
    twin = {**MUSIQUE, "answerable": False, "paragraphs": MUSIQUE["paragraphs"][1:]}
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(MUSIQUE)}\n{json.dumps(twin)}\n")
    one, other = table.read(str(tmp_path / "m.jsonl"), "musique")
    assert one.document_id == other.document_id
    assert (one.sufficient, other.sufficient) == (True, False)
