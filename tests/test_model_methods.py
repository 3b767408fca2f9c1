"""Methods and votes that need a model: a scripted server, and a real one that says anything."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate_helpers import curate, make_row, reasons

from curate.chat import Chat
from curate.insufficient import readers
from curate.insufficient.derive import Derived, derive, doubtful
from curate.recipe import InsufficientSettings
from curate.record import Passage, Row, read_rows, to_table, write_table

CASTLE = "Arden Castle was built in 1432 by Hugo Mason. It rained for a year. It is of grey stone."
ROW = make_row("Who built Arden Castle?", CASTLE, ["Hugo Mason"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An OpenAI-compatible server that says what ``server.say(prompt)`` gives; it counts."""
    cache = tmp_path / "answers"
    monkeypatch.setattr(readers, "default_cache", lambda: cache)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            httpd.asked.append(request)  # type: ignore[attr-defined]
            text = httpd.say(request["messages"][-1]["content"])  # type: ignore[attr-defined]
            message = {"role": "assistant", "content": text}
            self.reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def reply(self, value: dict[str, Any]) -> None:
            body = json.dumps({"id": "1", "model": "scripted", "created": 0, **value}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    httpd: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.asked, httpd.cache = [], cache
    httpd.address = f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def derived(
    server: Any, say: Callable[[str], str], *methods: str, keep: bool = False, **verify: Any
) -> Derived:
    """What is made of one row and three passages with this server for every model."""
    server.say = say
    if not keep:
        shutil.rmtree(server.cache, ignore_errors=True)
    model = {"url": server.address}
    passages = [
        Passage(f"The gate {n} of Arden Castle is red.", "d", f"gate {n}", "train")
        for n in range(3)
    ]
    settings = InsufficientSettings.model_validate(
        {"methods": methods, "writer": model, "verify": {"readers": [model], **verify}}
    )
    return derive([ROW], passages, settings, seed=1)


def test_a_context_is_retold_without_its_answer(server: Any) -> None:
    retold = "Arden Castle was built in 1432. It rained for a year. It is made of grey stone."
    (row,) = derived(
        server, lambda p: retold if "Rewrite" in p else "unanswerable", "rewritten"
    ).rows
    assert (row.context, row.question, row.sufficient) == (retold, ROW.question, False)
    assert row.votes == {"answer_present": 0.0, "answer_variant": 0.0, "reader:scripted": 0.0}
    assert 0 < row.intensity < 1


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (CASTLE, "no_candidate"),
        ("Nothing.", "no_candidate"),
        (CASTLE.replace("by Hugo Mason", "by old Hugo Mason"), "verifiers_disagree"),
    ],
)
def test_a_bad_retelling_is_dropped(server: Any, told: str, reason: str) -> None:
    result = derived(server, lambda _: told, "rewritten")
    assert result.rows == [] and [why for _, why in reasons(result)] == [reason]


def test_passages_that_entail_the_answer_are_left_out(server: Any) -> None:
    def say(prompt: str) -> str:
        return "Yes." if "gate 1" in prompt else "No."

    assert derived(server, say, "recombined").rows == []  # two passages where three are wanted
    (row,) = derived(server, lambda _: "No.", "recombined").rows
    assert len(row.context.split("\n\n")) == 3 and "Hugo" not in row.context


def test_rematched_keeps_the_passage_that_fools_the_reader(server: Any) -> None:
    (row,) = derived(server, lambda p: "red" if "gate 2" in p else "unanswerable", "rematched").rows
    assert "gate 2" in row.context and row.reason == "irrelevant_context"
    assert derived(server, lambda _: "unanswerable", "rematched").rows == []
    assert derived(server, lambda _: "no word of any passage", "rematched").rows == []


def test_questions_are_written(server: Any) -> None:
    said = 'Here it is:\n"Why was Arden Castle demolished by the Danes?"'
    (row,) = derived(server, lambda p: said if "takes for granted" in p else "unanswerable",
                     "false_premise_written").rows  # fmt: skip
    assert row.question == "Why was Arden Castle demolished by the Danes?"
    (row,) = derived(server, lambda p: "Who built it?" if "Rewrite" in p else "unanswerable",
                     "underspecified_written").rows  # fmt: skip
    assert (row.question, row.reason) == ("Who built it?", "underspecified")


def test_the_judge_is_asked_last_and_its_vote_decides(server: Any) -> None:
    def say(prompt: str) -> str:
        return "Yes" if "Is the context sufficient" in prompt else "unanswerable"

    result = derived(server, say, "evidence_removed", judge={"url": server.address, "name": "j"})
    assert result.rows == []
    (gone,) = result.dropped
    assert gone.row.votes["judge:j"] == 1.0 and gone.detail.startswith("judge:j")
    (asked,) = doubtful(result.dropped)
    assert asked.sufficient is None and asked.votes == gone.row.votes
    # A row that a free check refuses costs no request.
    before = len(server.asked)
    derived(server, lambda _: CASTLE.replace("rained", "poured"), "rewritten",
            judge={"url": server.address})  # fmt: skip
    assert len(server.asked) == before + 1


def test_readers_decide_where_the_recipe_says_so(server: Any) -> None:
    decide = ["answer_present", "reader"]
    found = derived(server, lambda _: "Hugo Mason", "evidence_removed", decide=decide)
    assert found.rows == [] and found.dropped[0].detail.startswith("reader:scripted")
    (row,) = derived(server, lambda _: "Hugo Mason", "evidence_removed").rows
    assert row.votes["reader:scripted"] == 1.0


def test_nothing_is_asked_twice(server: Any) -> None:
    judge = {"url": server.address}
    for _ in range(2):
        derived(server, lambda _: "unanswerable", "evidence_removed", keep=True, judge=judge)
    assert len(server.asked) == 2


def test_answers_of_a_run_vote(tmp_path: Path) -> None:
    settings = {"methods": ["evidence_removed"]}
    (row,) = derive([ROW], [], InsufficientSettings.model_validate(settings), 1).rows
    path = tmp_path / "base.parquet"
    pq.write_table(
        pa.table({"id": [row.id], "question": [ROW.question], "prediction": ["by Hugo Mason"]}),
        path,
    )
    voting = {**settings, "verify": {"predictions": [str(path)]}}
    (again,) = derive([ROW], [], InsufficientSettings.model_validate(voting), 1).rows
    assert again.votes["reader:base"] == 1.0


def test_a_real_model_writes_reads_and_judges(address: str, tmp_path: Path) -> None:
    """SmolLM2 is no good at it: what counts is that nothing it says makes a dishonest row."""
    rows: list[Row] = []
    for n in range(4):
        context = f"Arden Castle {n} was built in {1400 + n} by Hugo Mason. It rained for a year."
        rows.append(make_row(f"Who built Arden Castle {n}?", context, ["Hugo Mason"], f"d{n}"))
    write_table(to_table(rows), tmp_path / "rows.parquet")
    done = curate(
        "insufficient", tmp_path / "rows.parquet", "--out", tmp_path / "out.parquet",
        "--writer", address, "--reader", address, "--judge", address, "--json",
        "--methods", "rewritten,recombined,rematched,false_premise_written,evidence_removed",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    found = read_rows(tmp_path / "out.parquet")
    assert counts["rows"] == len(found) and counts["dropped"] > 0
    for row in found:
        if row.method != "human":
            assert set(row.votes) >= {"answer_present"} or "premise_supported" in row.votes
            assert any(name.startswith("reader:") for name in row.votes)
            assert any(name.startswith("judge:") for name in row.votes)


def test_a_server_that_is_not_there_is_named() -> None:
    from curate.errors import UserError

    with pytest.raises(UserError, match=r"http://127.0.0.1:9/v1: cannot be reached"):
        Chat("http://127.0.0.1:9/v1")
