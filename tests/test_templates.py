"""Questions made of facts: inflection, phrasings, and twins that their contexts do not answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import curate
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.generate import facts, templates
from curate.generate.facts import Subject
from curate.generate.phrasing import is_plural, phrasing
from curate.generate.templates import Templates
from curate.record import read_rows

TABLE = """station,docks,keeper,opening hours,wheelchair accessible,opened,floor area
Arden Mill,24,Ada Low,6:00 to 22:00,yes,1893,120 m²
Corby Gate,1,Bea Fry,,no,1901,80 m²
Elsworth,30,Cyd Orr,all day,no,1950,
Fenwick Quay,12,Dan Poe,7:00 to 19:00,yes,1893,120 m²
"""


@pytest.mark.parametrize(
    ("column", "values", "said", "asked"),
    [
        ("docks", ["24", "1"], "Garth has 24 docks.", "How many docks does Garth have?"),
        ("docks", ["1"], "Garth has 1 dock.", "How many docks does Garth have?"),
        ("opening_hours", ["all day"], "The opening hours of Garth are all day.",
         "What are the opening hours of Garth?"),
        ("Price", ["£72"], "The price of Garth is £72.", "What is the price of Garth?"),
        ("glass", ["green"], "The glass of Garth is green.", "What is the glass of Garth?"),
        ("news", ["none"], "The news of Garth is none.", "What is the news of Garth?"),
        ("keeper", ["Ada Low"], "The keeper of Garth is Ada Low.", "Who is the keeper of Garth?"),
        ("keeper", ["a firm"], "The keeper of Garth is a firm.", "What is the keeper of Garth?"),
        ("roofed", ["yes", "no"], "Garth is roofed.", "Is Garth roofed?"),
        ("roofed", ["No"], "Garth is not roofed.", "Is Garth roofed?"),
        ("opened", ["1893"], "Garth was opened in 1893.", "When was Garth opened?"),
        ("built", ["3 May 1893"], "Garth was built on 3 May 1893.", "When was Garth built?"),
        ("URL", ["x.example"], "The URL of Garth is x.example.", "What is the URL of Garth?"),
    ],
)  # fmt: skip
def test_columns_are_said_and_asked_as_people_would(
    column: str, values: list[str], said: str, asked: str
) -> None:
    told = phrasing(column, values)
    assert (told.statement("Garth", values[0]), told.question(0, "Garth")) == (said, asked)


def test_plurals_are_known() -> None:
    assert [word for word in ("docks", "news", "series", "glass", "people", "fees", "price")
            if is_plural(word)] == ["docks", "people", "fees"]  # fmt: skip


def test_table_becomes_questions_and_twins(tmp_path: Path) -> None:
    (tmp_path / "stations.csv").write_text(TABLE)
    out = tmp_path / "s.parquet"
    done = curate("generate", "templates", tmp_path / "stations.csv", "--out", out, "--json",
                  "--phrasings", 1)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_rows(out)
    by_id = {row.source_id: row for row in rows}
    assert len(by_id) == len(rows) and {row.method for row in rows} == {"template"}
    known = sum(cell != "" for line in TABLE.splitlines()[1:] for cell in line.split(",")[1:])
    sufficient = [row for row in rows if row.sufficient]
    assert len(sufficient) == known
    for row in sufficient:
        (answer,), (start,), ((first, last),) = row.answers, row.answer_starts, row.evidence
        sentence = row.context[first:last]
        if answer not in ("yes", "no"):
            assert first <= start and row.context[start : start + len(answer)] == answer
        twin = by_id.get(f"{row.source_id}/twin")
        if twin is not None:  # the same question; its context lacks the sentence, and no more
            assert twin.question == row.question and sentence not in twin.context
            words = row.context.replace(sentence, "", 1).split()
            assert twin.context.split() == words
    empty = [
        row for row in rows if row.source_id.startswith(("Corby Gate/opening", "Elsworth/floor"))
    ]
    assert [row.sufficient for row in empty] == [False, False]
    assert {row.reason for row in rows if not row.sufficient} == {"evidence_missing"}


names = st.text("abcdefgh", min_size=2, max_size=6).map(str.title)
cells = st.one_of(st.none(), st.sampled_from(["12", "1", "yes", "no", "red", "1893", "Ada Low"]))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        names, st.fixed_dictionaries({"docks": cells, "colour": cells, "opened": cells}),
        min_size=1, max_size=7,
    ),
    st.integers(1, 3),
)  # fmt: skip
def test_no_twin_holds_its_answer_and_every_answer_its_place(
    found: dict[str, dict[str, str | None]], together: int
) -> None:
    subjects = [Subject(name, cells) for name, cells in found.items()]
    made = templates.write(subjects, "s", Templates(), together=together)
    again = templates.write(subjects, "s", Templates(), together=together)
    assert made.rows == again.rows
    for row in made.rows:
        subject, column, *_ = row.source_id.split("/")
        told = phrasing(column, [one.facts[column] for one in subjects])
        value = found[subject][column]
        sentence = told.statement(subject, value) if value else ""
        assert (bool(sentence) and sentence in row.context) == row.sufficient
        documents = {one.document_id for one in made.rows if one.context == row.context}
        assert documents == {row.document_id}


def test_own_wordings_and_columns_to_skip(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(TABLE)
    (tmp_path / "t.yaml").write_text(
        "skip: [docks, keeper, opening hours, wheelchair accessible, floor area]\n"
        "columns:\n  opened:\n    says: '{subject} welcomed its first riders in {value}.'\n"
        "    asks: ['When did {subject} first welcome riders?']\n"
    )
    out = tmp_path / "o.parquet"
    done = curate("generate", "templates", tmp_path / "s.csv", "--out", out, "--templates",
                  tmp_path / "t.yaml")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_rows(out)
    assert "When did Elsworth first welcome riders?" in {row.question for row in rows}
    assert all("welcomed its first riders" in row.context for row in rows)
    (tmp_path / "t.yaml").write_text("skip: [dock]")
    done = curate("generate", "templates", tmp_path / "s.csv", "--out", out, "--templates",
                  tmp_path / "t.yaml")  # fmt: skip
    assert done.returncode == 1 and "column 'dock'; there are docks, keeper" in done.stderr


def test_keys_and_values_are_read_as_tables_are(tmp_path: Path) -> None:
    value: dict[str, Any] = {"Arden Mill": {"docks": 24, "roofed": True}, "Garth": {"docks": None}}
    (tmp_path / "f.json").write_text(json.dumps(value))
    assert facts.read(tmp_path / "f.json") == [
        Subject("Arden Mill", {"docks": "24", "roofed": "yes"}),
        Subject("Garth", {"docks": None}),
    ]


@pytest.mark.parametrize(
    ("text", "subject", "message"),
    [
        ("a,b\nX,1\nx,2\n", "", "line 3: subject 'x' is there already .*line 2"),
        ("a,b\n,1\n", "", "line 2: the subject has no name"),
        ("a,b\nX,1\n", "c", "line 2: no column 'c'; there are a, b"),
        ("a,b\n", "", "no subject in it"),
    ],
)
def test_facts_that_cannot_be_asked_about_are_named(
    tmp_path: Path, text: str, subject: str, message: str
) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        facts.read(tmp_path / "f.csv", subject)


def test_dry_run_shows_the_wordings_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(TABLE)
    done = curate("generate", "templates", tmp_path / "s.csv", "--out", tmp_path / "o.parquet",
                  "--dry-run")  # fmt: skip
    assert done.returncode == 0 and "How many docks does Arden Mill have?" in done.stdout
    assert not (tmp_path / "o.parquet").exists()
