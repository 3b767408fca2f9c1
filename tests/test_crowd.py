"""Mechanical Turk batches: what is uploaded, and what comes of the results."""

import csv
import html
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from helpers import run_command
from hypothesis import given
from hypothesis import strategies as st

from curate import record
from curate.annotate.agreement import agreement, with_others
from curate.annotate.crowd import results
from curate.record import Passage, Row

CONTEXT = 'The "north" gate of Arden <1423> costs $5 & more.\nIts keeper is Zoë 🔔 Pell.'
Says = Callable[[str], dict[str, str] | None]  # a task's question → the page's fields


def row(question: str, answer: str = "", context: str = CONTEXT, **more: Any) -> Row:
    found = Row(question, context, source="people", source_id=question, **more)
    if answer:
        found.answers, found.answer_starts = [answer], [context.find(answer)]
        found.sufficient = True
    return found.stamped()


ROWS = [
    row("Who keeps the north gate?"),
    row("Who built the north gate?", sufficient=False, reason="unlabelled"),
    row("How much is it?", "5"),
    row("Gate gate gate?"),
    row("Is it nice?"),
    row("Nobody is asked this?"),
]
GOLD = [row(f"What does sign {n} say?", f"sign {n}", f"Here is sign {n}.") for n in range(4)]


def saved(rows: list[Row], path: Path) -> Path:
    record.write_table(record.to_table(rows), path)
    return path


def crowd(command: str, *arguments: object) -> dict[str, Any]:
    done = run_command("curate", "annotate", "crowd", command, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_form(said: dict[str, str]) -> dict[str, str]:
    """A page's fields as a crowd form sends them: JSON, choices as flags."""
    options = {"sufficient": ("yes", "no"), "reason": ("evidence_missing", "false_premise")}
    value: dict[str, Any] = {"comment": ""}
    for name, text in said.items():
        if name in options:
            value[name] = {option: option == text for option in {*options[name], text}}
        else:
            value[name] = {"on": True} if name == "bad" else text
    return {"Answer.taskAnswers": json.dumps([value])}


def as_columns(said: dict[str, str]) -> dict[str, str]:
    """The same as a plain form sends it: a column a field, of choices one an option."""
    columns = {}
    for name, text in said.items():
        if name in ("sufficient", "reason", "bad"):
            columns |= {f"Answer.{name}.{text}": "true", f"Answer.{name}.other": "false"}
        else:
            columns[f"Answer.{name}"] = text
    return columns


def answered(
    batch: Path,
    workers: dict[str, Says],
    form: Callable[[dict[str, str]], dict[str, str]] = as_form,
    status: str = "Submitted",
) -> Path:
    """A file of results: each worker works through the batch."""
    lines = []
    with batch.open(newline="", encoding="ascii") as file:
        for task, worker in itertools.product(csv.DictReader(file), sorted(workers)):
            said = workers[worker](html.unescape(task.get("question", task["context"])))
            if said is not None:
                identity = f"{task['id']}-{worker}"
                about = {"HITId": task["id"], "AssignmentId": identity, "WorkerId": worker}
                shown = {f"Input.{name}": value for name, value in task.items()}
                rest = {"Approve": "", "Reject": ""}
                lines.append(about | {"AssignmentStatus": status} | shown | form(said) | rest)
    path = batch.with_name(f"results-{len(list(batch.parent.iterdir()))}.csv")
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(n for line in lines for n in line)), "")
        writer.writeheader()
        writer.writerows(lines)
    return path


def careful(question: str) -> dict[str, str] | None:
    if "sign" in question:
        return {"sufficient": "yes", "answer": "Sign " + question.split()[3]}
    return {
        "Who keeps the north gate?": {"sufficient": "yes", "answer": "zoë 🔔 pell"},
        "Who built the north gate?": {"sufficient": "no", "reason": "evidence_missing"},
        "How much is it?": {"sufficient": "no", "reason": "underspecified"},
        "Gate gate gate?": {"sufficient": "no", "bad": "on", "comment": "what?"},
        "Is it nice?": {"sufficient": "yes"},
    }.get(question)


def other(question: str) -> dict[str, str] | None:
    said = careful(question)
    if question == "How much is it?":
        return {"sufficient": "yes", "answer": "$5"}
    if question == "Who built the north gate?":
        return {"sufficient": "no", "reason": "false_premise"}
    return said


def careless(question: str) -> dict[str, str] | None:
    return {"sufficient": "yes", "answer": "Arden"} if "asked this" not in question else None


@pytest.mark.parametrize("form", [as_form, as_columns])
def test_what_most_say_becomes_the_label_and_who_fails_is_not_heard(
    tmp_path: Path, form: Any
) -> None:
    batch, out = tmp_path / "batch.csv", tmp_path / "labelled.parquet"
    exported = crowd(
        "export", saved(ROWS, tmp_path / "rows.parquet"), "--out", batch,
        "--qualification", saved(GOLD, tmp_path / "gold.parquet"), "--known-share", 0.4,
    )  # fmt: skip
    assert exported == {"tasks": 6, "known": 4, "too_short": 0}
    workers = {"A1": careful, "A2": careful, "A3": other, "A4": careless}
    counts = crowd("import", answered(batch, workers, form), "--batch", batch, "--out", out)
    assert counts["failed"] == ["A4"]
    assert counts["left_out"] == {"of workers who failed": 9}
    assert counts["labels"] == {
        "labelled": 1,
        "corrected": 1,
        "changed": 1,
        "undecided": 1,
        "not judged": 1,
    }
    assert counts["dropped"] == {"question_makes_no_sense": 1}
    rows = {one.question: one for one in record.read_rows(out)}
    keeper = rows["Who keeps the north gate?"]
    assert keeper.sufficient and keeper.answers == ["Zoë 🔔 Pell"]
    assert CONTEXT[keeper.answer_starts[0] :].startswith("Zoë 🔔 Pell")
    assert sorted(keeper.votes.values()) == [1.0, 1.0, 1.0]
    assert not any("A1" in name for name in keeper.votes)  # nobody's name in the data
    assert rows["Who built the north gate?"].reason == "evidence_missing"
    price = rows["How much is it?"]
    assert price.sufficient is False and price.reason == "underspecified" and not price.answers
    assert rows["Is it nice?"].sufficient is None  # yes, but nobody says what
    before = {one.question: one for one in ROWS}
    assert rows["Nobody is asked this?"] == before["Nobody is asked this?"]
    assert price.id == before["How much is it?"].id
    assert price.content_hash == price.current_content_hash()
    with out.with_suffix(".workers.csv").open() as file:
        people = {line["Worker ID"]: line for line in csv.DictReader(file)}
    scores = {name: line["UPDATE-grounded-abstain"] for name, line in people.items()}
    assert scores == {"A1": "100", "A2": "100", "A3": "100", "A4": "0"}
    # On five tasks, two of which A3 says otherwise on: one of those only in its reason.
    assert counts["agreement"]["things"] == 5
    assert counts["agreement"]["share"] == pytest.approx((4 * 3 + 1) / 15)


def test_a_tie_is_no_label(tmp_path: Path) -> None:
    batch, out = tmp_path / "batch.csv", tmp_path / "labelled.parquet"
    crowd("export", saved(ROWS[2:3], tmp_path / "rows.parquet"), "--out", batch)
    path = answered(batch, {"A1": careful, "A2": other})
    crowd("import", path, "--batch", batch, "--out", out)
    [price] = record.read_rows(out)
    assert price.sufficient is None and price.answers == [] and len(price.votes) == 2


def test_values_survive_the_page_and_are_plain_ascii_on_one_line(tmp_path: Path) -> None:
    batch = tmp_path / "batch.csv"
    crowd("export", saved(ROWS, tmp_path / "rows.parquet"), "--out", batch)
    raw = batch.read_bytes()
    assert raw.isascii() and raw.count(b"\n") == len(ROWS) + 1
    assert b"${" not in raw and b"<" not in raw
    lines = list(csv.DictReader(io.StringIO(raw.decode())))
    assert {html.unescape(line["context"]) for line in lines} == {CONTEXT}
    assert [line["id"] for line in lines] != [one.id for one in ROWS]


@pytest.mark.parametrize("task", ["label", "write"])
def test_the_page_asks_for_what_import_reads(tmp_path: Path, task: str) -> None:
    batch = tmp_path / "batch.csv"
    path = saved([row("Who?", context=CONTEXT * 3)], tmp_path / "rows.parquet")
    crowd("export", path, "--out", batch, "--task", task)
    page = batch.with_suffix(".html").read_text()
    columns = set(next(csv.reader(batch.open())))
    shown = {part.partition("}")[0] for part in page.split("${")[2:]}  # behind the comment's own
    assert shown == columns - {"id"}
    soup = BeautifulSoup(page, "lxml")
    names = {field["name"] for field in soup.select("crowd-form [name]")}
    wanted = {
        "label": {"sufficient", "answer", "reason", "bad", "comment"},
        "write": {"question", "answer", "unanswerable", "reason", "comment"},
    }
    assert names == wanted[task]
    reasons = {field["value"] for field in soup.select('[name="reason"]')}
    assert reasons <= set(record.REASONS)


def test_a_qualification_set_alone_gives_scores(tmp_path: Path) -> None:
    batch, gold = tmp_path / "batch.csv", saved(GOLD, tmp_path / "gold.parquet")
    exported = crowd("export", gold, "--qualification", gold, "--out", batch)
    assert exported == {"tasks": 0, "known": 4, "too_short": 0}
    path = answered(batch, {"A1": careful, "A4": careless})
    counts = crowd("import", path, "--batch", batch, "--out", tmp_path / "none.parquet")
    assert counts["rows"] == 0 and counts["failed"] == ["A4"]


def test_written_questions_become_rows_and_bad_ones_say_why(tmp_path: Path) -> None:
    short = Passage("The gate.", "d2")
    passage = Passage("The north gate of Arden was built in 1423 by masons from Corby. " * 2, "d1")
    path = tmp_path / "p.passages.parquet"
    record.write_table(record.passages_to_table([short, passage]), path)
    batch, out = tmp_path / "batch.csv", tmp_path / "written.parquet"
    exported = crowd("export", path, "--task", "write", "--out", batch)
    assert exported == {"tasks": 1, "known": 0, "too_short": 1}

    def good(_: str) -> dict[str, str]:
        return {
            "question": "In which year was the gate built?",
            "answer": "1423.",
            "unanswerable": "Who paid for the north gate of Arden?",
            "reason": "evidence_missing",
        }

    def poor(_: str) -> dict[str, str]:
        return {
            "question": "Where do the masons of the gate come from?",
            "answer": "Dunmore",
            "unanswerable": "What does the passage not say?",
            "reason": "evidence_missing",
        }

    workers: dict[str, Says] = {"A1": good, "A2": good, "A3": poor}
    counts = crowd("import", answered(batch, workers), "--batch", batch, "--out", out)
    rows = record.read_rows(out)
    assert [(one.question, one.answers, one.reason) for one in rows] == [
        ("In which year was the gate built?", ["1423"], ""),
        ("Who paid for the north gate of Arden?", [], "evidence_missing"),
    ]
    assert all(one.method == "crowd" and one.document_id == "d1" for one in rows)
    assert counts["dropped"] == {
        "answer_not_in_passage": 1,
        "speaks_of_the_passage": 1,
        "exact_duplicate": 2,
    }


def test_rejected_repeated_and_foreign_assignments(tmp_path: Path) -> None:
    batch, out = tmp_path / "batch.csv", tmp_path / "labelled.parquet"
    crowd("export", saved(ROWS[:1], tmp_path / "rows.parquet"), "--out", batch)
    submitted = answered(batch, {"A1": careful, "A2": careless})
    rejected = answered(batch, {"A2": careless}, status="Rejected")
    counts = crowd("import", submitted, rejected, submitted, "--batch", batch, "--out", out)
    assert counts["assignments"] == 2  # the last status is the first file's, read again
    counts = crowd("import", submitted, rejected, "--batch", batch, "--out", out)
    assert counts["left_out"] == {"rejected": 1}
    [keeper] = record.read_rows(out)
    assert keeper.answers == ["Zoë 🔔 Pell"]
    elsewhere = tmp_path / "else.csv"
    crowd("export", saved(ROWS[1:2], tmp_path / "else.parquet"), "--out", elsewhere)
    done = run_command(
        "curate", "annotate", "crowd", "import", submitted, "--batch", elsewhere, "--out", out
    )
    assert done.returncode == 1 and "another batch" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no column AssignmentId, WorkerId, Input.id"),
        ("AssignmentId,WorkerId,Input.id\n1,2,3\n", "no column Answer."),
        ("AssignmentId,WorkerId,Input.id,Answer.taskAnswers\n1,2,3,{oops\n", "line 2"),
        ("AssignmentId,WorkerId,Input.id,Answer.taskAnswers\n1,2,3,5\n", "line 2"),
        ("AssignmentId,WorkerId,Input.id,Answer.x\n1,2\n", "line 2: not as many values"),
    ],
)
def test_a_file_that_is_no_results_is_told_by_name(tmp_path: Path, text: str, said: str) -> None:
    batch, path = tmp_path / "batch.csv", tmp_path / "results.csv"
    crowd("export", saved(ROWS[:1], tmp_path / "rows.parquet"), "--out", batch)
    path.write_text(text)
    done = run_command(
        "curate", "annotate", "crowd", "import", path, "--batch", batch, "--out", tmp_path / "o.pq"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert said in done.stderr and "results.csv" in done.stderr


def test_without_its_key_a_batch_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("x")
    done = run_command(
        "curate", "annotate", "crowd", "import", path, "--batch", tmp_path / "batch.csv",
        "--out", tmp_path / "o.parquet",
    )  # fmt: skip
    assert done.returncode == 1 and "no key beside it" in done.stderr


@given(st.dictionaries(st.text(min_size=1), st.booleans(), max_size=4))
def test_flags_of_a_choice_give_the_one_that_is_set(flags: dict[str, bool]) -> None:
    found = results._of_json(json.dumps([{"reason": flags}]), "here")
    chosen = [name for name, is_set in flags.items() if is_set]
    assert found == ({"reason": chosen[0]} if chosen else {})


Table = dict[str, dict[str, str]]
TABLES = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.dictionaries(st.sampled_from("UVWXY"), st.sampled_from(["yes", "no"]), max_size=5),
)


@given(TABLES)
def test_agreement_equals_its_definition(judged: Table) -> None:
    """Krippendorff's coincidence matrix, written out slowly."""
    several = [list(said.values()) for said in judged.values() if len(said) > 1]
    together = Counter[tuple[str, str]]()
    for said in several:
        for one, two in itertools.permutations(range(len(said)), 2):
            together[said[one], said[two]] += 1 / (len(said) - 1)  # type: ignore[assignment]
    totals = Counter[str]()
    for (one, _), weight in together.items():
        totals[one] += weight
    everything = sum(totals.values())
    found = agreement(judged)
    assert found.things == len(several)
    if len(totals) < 2:
        assert found.alpha is None
    else:
        observed = sum(weight for (one, two), weight in together.items() if one != two)
        expected = sum(totals[a] * totals[b] for a, b in itertools.permutations(totals, 2))
        assert found.alpha == pytest.approx(1 - observed * (everything - 1) / expected)
    pairs = [a == b for said in several for a, b in itertools.combinations(said, 2)]
    assert found.share == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_a_person_is_held_against_the_majority_of_the_others() -> None:
    judged = {
        "one": {"A": "yes", "B": "yes", "C": "yes"},
        "two": {"A": "no", "B": "yes", "C": "yes"},
        "divided": {"A": "no", "B": "yes", "C": "no"},
        "alone": {"A": "no"},
    }
    assert with_others(judged, "A") == (1, 2)
    assert with_others(judged, "B") == (1, 3 - 1)
