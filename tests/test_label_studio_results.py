"""Tasks and annotations' JSON without a server: spans, choices, order, and the keyring."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import make_row
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio import choose, mark, no, saved, write, yes

from curate.annotate.label_studio import (
    config,
    journal,
    keyring,
    predictions,
    results,
    send,
    tasks,
)
from curate.annotate.label_studio.choose import choose as choose_rows
from curate.annotate.label_studio.choose import overlap_first
from curate.annotate.label_studio.predictions import Guess
from curate.errors import UserError
from curate.record import NOT_A_SPAN, REASONS

CONTROLS = config.controls(config.text(), "ours")


def test_the_page_offers_every_reason_and_only_those() -> None:
    assert CONTROLS[config.REASON].values == set(REASONS) - {"unlabelled"}
    assert config.changed(config.text(), "ours") == []


@given(st.text(st.sampled_from("aé🔔 \n\r\t<&"), min_size=1, max_size=30), st.data())
def test_spans_are_found_whether_the_server_counts_characters_or_utf_16(
    context: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    text = context[start:end]
    units = [len(context[:n].encode("utf-16-le")) // 2 for n in (start, end)]
    for first, last in ((start, end), units):
        value = {"start": first, "end": last, "text": text, "labels": ["answer"]}
        part = mark(context, text) | {"value": value}
        if not text.strip():
            with pytest.raises(results.Invalid):
                results.read([yes(), part], context, CONTROLS)
            continue
        ((found, at),) = results.read([yes(), part], context, CONTROLS).answers
        assert found == text.strip() and context[at : at + len(found)] == found


_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["from_name", "type", "value", "choices", "text", "start", "end", "labels"]
            )
            | st.text(max_size=3),
            inner | st.sampled_from(["sufficient", "answer", "choices", "labels", "yes"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@given(_json)
def test_whatever_a_result_holds_it_is_read_or_invalid(result: Any) -> None:
    try:
        results.read(result, "some passage", CONTROLS)
    except results.Invalid as problem:
        assert str(problem)


def test_choices_texts_and_what_was_marked_before_a_no() -> None:
    context = "It is Ann, says Ben."
    said = results.read(
        [no(), mark(context, "Ann"), choose("reason", "false_premise"), write("comment", "hm")],
        context,
        CONTROLS,
    )
    assert (said.sufficient, said.answers, said.reason, said.comment) == (
        False, (), "false_premise", "hm",
    )  # fmt: skip
    own = results.read(
        [yes(), write("corrected", "ann"), write("corrected", "no one")], context, CONTROLS
    )
    assert own.answers == (("Ann", 6), ("no one", NOT_A_SPAN))


def test_a_row_comes_back_from_its_task_as_it_went() -> None:
    row = make_row(
        "Who?", "It is Ann.", ["Ann"], evidence=[(0, 10)], votes={"judge:x": 0.5},
        history=[{"role": "user", "content": "Is it Ben?"}],
    )  # fmt: skip
    task = json.loads(json.dumps(tasks.task_of(row, [])))
    assert tasks.row_of(task) == row
    assert tasks.row_of({"data": {"question": "Who?"}, "meta": {}}) is None


def test_what_is_sent_first() -> None:
    rows = [
        make_row(
            f"q{n}", "c", source_id=str(n), votes={"reader:a": a, "reader:b": b}, method=method
        )
        for n, (a, b, method) in enumerate(
            [(0, 0, "x"), (1, 0, "x"), (0.6, 0.6, "x"), (1, 1, "y"), (0, 0.5, "x"), (1, 1, "x")]
        )
    ]

    def asked(first: Any, **run: Guess) -> list[str]:
        guesses = {row.id: run[row.question] for row in rows if row.question in run}
        return [row.question for row in choose_rows(rows, first, guesses, 3, None)]

    assert asked("disagreement")[:2] == ["q1", "q4"]
    assert asked("margin")[:2] == ["q1", "q2"]
    assert asked("margin", q3=Guess("q3", "a", 0.5, ""), q1=Guess("q1", "a", 0.9, ""))[0] == "q3"
    assert Counter(row.method for row in choose_rows(rows, "random", {}, 3, 2)) == {"x": 1, "y": 1}
    several = overlap_first(rows, 0.5, 1)
    assert sorted(row.id for row in several) == sorted(row.id for row in rows)
    assert several != rows


def test_predictions_are_what_the_page_could_have_sent() -> None:
    row = make_row("Who?", "It is Ann.", ["Ann"], votes={"reader:a": 1.0, "judge:b": 0.5})
    of_votes = predictions.of_votes(row)
    assert of_votes is not None and of_votes["score"] == 0.75
    assert results.read(of_votes["result"], row.context, CONTROLS).answers == (("Ann", 6),)
    run = {row.id: Guess("Who?", "", 0.2, "evidence_missing")}
    of_run = predictions.of_run("lora", run)(row)
    assert of_run is not None and of_run["score"] == 0.8
    said = results.read(of_run["result"], row.context, CONTROLS)
    assert said.sufficient is False and said.reason == "evidence_missing"
    assert predictions.of_run("lora", {row.id: Guess("Other?", "x", 1, "")})(row) is None


def test_an_event_that_was_overtaken_does_not_undo_what_is_newer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def annotation(second: int, *result: Any) -> dict[str, Any]:
        return {"id": 7, "updated_at": f"2026-01-01T00:00:0{second}Z", "result": list(result)}

    def event(action: str, second: int, *result: Any) -> dict[str, Any]:
        return {
            "action": action, "annotation": annotation(second, *result), "task": {"id": 3},
            "project": {"id": 1},
        }  # fmt: skip

    whole = {"id": 3, "project": 1, "annotations": [annotation(5, yes())]}
    journal.append(path, journal.TASK, [whole], "http://a")
    journal.append(path, journal.EVENT, [event("ANNOTATION_UPDATED", 4, no())], "http://a")
    tasks_, torn = journal.read(path)
    assert tasks_["http://a", 1, 3].annotations[7]["result"] == [yes()] and torn == 0
    journal.append(path, journal.EVENT, [event("ANNOTATION_UPDATED", 6, no())], "http://a")
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 7}]}
    journal.append(path, journal.EVENT, [gone], "http://a")
    task = journal.read(path)[0]["http://a", 1, 3]
    assert task.annotations[7]["result"] == [no()] and task.deleted == {7}
    # What the last pull listed is as it was: the next one fetches what it did not bring.
    assert task.listed == {7: "2026-01-01T00:00:05Z"}


def test_a_token_that_others_may_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    monkeypatch.setenv("LABEL_STUDIO_KEYRING", str(file))
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    with pytest.raises(UserError, match="curate annotate login"):
        keyring.token("http://a:1")
    keyring.keep("http://a:1/", "secret-a")
    keyring.keep("http://b:1", "secret-b")
    assert keyring.token("http://a:1") == "secret-a" and keyring.token("http://b:1/") == "secret-b"
    assert file.stat().st_mode & 0o777 == 0o600
    os.chmod(file, 0o644)  # noqa: PTH101 - as a user would
    with pytest.raises(UserError, match="chmod 600") as problem:
        keyring.token("http://a:1")
    assert "secret" not in str(problem.value)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", " mine ")
    assert keyring.token("http://a:1") == "mine"


@pytest.mark.parametrize("secret", ["one\ntwo", "“quoted”", "a b"])
def test_what_is_no_token_is_refused_without_a_word_of_it(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(keyring.TOKEN_VARIABLE, secret)
    with pytest.raises(UserError, match="holds no token") as refused:
        keyring.token("http://a:1")
    assert secret not in str(refused.value)


def test_known_rows_bring_no_vote_and_runs_are_named_by_their_folders(tmp_path: Path) -> None:
    known = make_row("Who is it?", "It is Ann.", ["Ann"])
    other = make_row("Where is it?", "It is here.", ["here"])
    path, gold = tmp_path / "rows.parquet", tmp_path / "gold.parquet"
    saved([known, other], path)
    saved([known], gold)
    made = send.tasks(path, "random", None, [], gold, 1, 1.0, seed=1)
    votes = {task["data"]["row"]: task["predictions"] for task in made}
    assert votes[known.id] == [] and len(votes[other.id]) == 1
    assert send.name_of(tmp_path / "rows.parquet") == "rows"


def test_a_relation_between_spans_spoils_no_annotation() -> None:
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    context = "It is Ann."
    assert results.read([yes(), mark(context, "Ann"), relation], context, CONTROLS).sufficient
