"""`curate generate llm` against a real llama.cpp server, through a proxy that makes trouble."""

import json
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import BIN, ENVIRONMENT, run_command
from hypothesis import given
from hypothesis import strategies as st

from curate import record
from curate.generate import checks
from curate.generate.llm import asking, passages, prompts
from curate.generate.llm.asking import asked_wait
from curate.generate.llm.responses import Responses, Usage
from curate.record import Passage, Row

GATE = (
    "The north gate of Arden was built in 1423 by masons from Corby. It is painted green, and a "
    "market is held beside it every Tuesday. Its keeper, Joan Pell, rings a bell at nine."
)
# Of a request's body, what the server should be told to answer; None: ask the real server.
Trouble = Callable[[int, dict[str, Any]], tuple[int, dict[str, str], str] | None]


class Proxy:
    """Stands before a model's server, counts what is asked and what was answered in full."""

    def __init__(self, server: str, trouble: Trouble) -> None:
        self.server, self.trouble = server, trouble
        self.asked: Counter[str] = Counter()  # by body
        self.answered: Counter[str] = Counter()  # with a 200 that the client took
        self.url = ""
        self.lock = threading.Lock()


@contextmanager
def proxy(server: str, trouble: Trouble = lambda number, body: None) -> Iterator[Proxy]:
    stands = Proxy(server.removesuffix("/v1"), trouble)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = stands.server + self.path
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
                self.reply(200, {}, answer.read())

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with stands.lock:
                stands.asked[raw.decode()] += 1
                number = stands.asked.total()
            made = stands.trouble(number, json.loads(raw))
            if made is not None:
                self.reply(made[0], made[1], made[2].encode())
            else:
                request = urllib.request.Request(  # noqa: S310
                    stands.server + self.path, raw, {"Content-Type": "application/json"}
                )
                try:
                    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
                        self.reply(200, {}, answer.read())
                except urllib.error.HTTPError as error:
                    self.reply(error.code, {}, error.read())
                    return
            if made is None or made[0] == 200:
                with stands.lock:
                    stands.answered[raw.decode()] += 1

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    stands.url = f"http://127.0.0.1:{served.server_address[1]}/v1"
    try:
        yield stands
    finally:
        served.shutdown()
        served.server_close()
        thread.join(10)


def completion(content: str) -> str:
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"choices": [{"message": {"content": content}}], "usage": usage})


def answer_of(body: dict[str, Any]) -> str:
    """What a good model says: writes two pairs, one of them bad, and reads what it is shown."""
    text = body["messages"][-1]["content"]
    if "questions that the passage answers" in text:
        pairs = [
            ("Who keeps the north gate of Arden?", "joan pell"),
            ("In which year was the north gate of Arden built?", "1423"),
            ("On which day is the market of Arden held?", "Monday"),
            ("Which gate of Arden is the north gate?", "north gate"),
            ("What colour is the north gate of Arden?", "green"),
            ("By whom is the north gate of Arden kept?", "Joan Pell"),
        ]
        questions: list[Any] = [{"question": q, "answer": a} for q, a in pairs]
    elif "that the passage does not answer" in text:
        questions = [
            {"question": "Who painted the north gate of Arden?"},
            {"question": "When does the keeper of Arden go home?"},
            {"question": "When does the market of Arden end?"},
        ]
    elif "Is the context sufficient" in text:
        return "Yes." if "market" in text.partition("Question:")[2] else "No."
    elif "from what you know" in text:
        return "It was green, I think." if "colour" in text else "unknown"
    else:
        asked = text.partition("Question:")[2]
        known = {"year": "1423.", "colour": "green", "Who keeps": "Joan Pell", "home": "at nine"}
        known |= {"By whom": "a bell"}
        return next((said for word, said in known.items() if word in asked), "unanswerable")
    return json.dumps({"questions": questions})


def good(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
    return 200, {}, completion(answer_of(body))


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return written(tmp_path, 1)


def written(folder: Path, count: int) -> Path:
    """A file of passages."""
    found = [
        Passage(f"Gate {n}. {GATE}", f"town/{n}", url=f"https://arden.example/{n}", licence="CC0")
        for n in range(count)
    ]
    path = folder / "gates.passages.parquet"
    record.write_table(record.passages_to_table(found), path)
    return path


def generate(path: Path, out: Path, url: str, *more: object) -> dict[str, Any]:
    done = run_command(
        "curate", "generate", "llm", path, "--out", out, "--endpoint", url, "--json", *more
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_survives_is_right_and_all_else_says_why(gate: Path, tmp_path: Path) -> None:
    out = tmp_path / "written.parquet"
    with proxy("", good) as server:
        counts = generate(gate, out, server.url, "--model", "m", "--pairs", 6, "--unanswerable", 3)
    rows = {row.question: row for row in record.read_rows(out)}
    assert set(rows) == {
        "Who keeps the north gate of Arden?",
        "In which year was the north gate of Arden built?",
        "Who painted the north gate of Arden?",
    }
    kept = rows["Who keeps the north gate of Arden?"]
    assert kept.answers == ["Joan Pell"]  # as the passage writes it
    assert kept.context[kept.answer_starts[0] :].startswith("Joan Pell")
    assert kept.sufficient and kept.votes == {"reader:m": 1.0}
    assert (kept.url, kept.licence, kept.document_id) == (
        "https://arden.example/0",
        "CC0",
        "town/0",
    )
    unanswerable = rows["Who painted the north gate of Arden?"]
    assert unanswerable.sufficient is False
    assert unanswerable.reason in ("evidence_missing", "false_premise")
    assert unanswerable.votes == {"reader:m": 0.0, "judge:m": 0.0}
    dropped = record.dropped_from_table(
        record.read_table(out.with_suffix(".dropped.parquet"), record.DROPPED_SCHEMA)
    )
    why = {one.row.question: one.drop_reason for one in dropped}
    assert why["On which day is the market of Arden held?"] == "answer_not_in_passage"
    assert why["Which gate of Arden is the north gate?"] == "answer_in_question"
    assert why["What colour is the north gate of Arden?"] == "answered_without_passage"
    assert why["By whom is the north gate of Arden kept?"] == "reader_disagrees"
    assert why["When does the keeper of Arden go home?"] == "reader_answers"
    assert why["When does the market of Arden end?"] == "judge_finds_an_answer"
    assert counts["rows"] + sum(counts["dropped"].values()) == counts["written"]


def test_a_question_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    known = Row("Who keeps the north gate of Arden?", GATE, answers=["Joan Pell"], sufficient=True)
    known.answer_starts, known.source = [GATE.index("Joan Pell")], "people"
    path, out = tmp_path / "people.parquet", tmp_path / "written.parquet"
    record.write_table(record.to_table([known.stamped()]), path)
    with proxy("", good) as server:
        counts = generate(path, out, server.url, "--model", "m", "--pairs", 6)
    assert counts["dropped"]["exact_duplicate"] >= 1
    assert known.question not in {row.question for row in record.read_rows(out)}


def test_nothing_is_asked_twice_even_of_what_could_not_be_read(tmp_path: Path) -> None:
    path, out = written(tmp_path, 4), tmp_path / "written.parquet"
    seen = Counter[str]()

    def trouble(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        asked = body["messages"][-1]["content"]
        request = json.dumps(body)
        seen[request] += 1
        if seen[request] == 1:
            return 429, {"Retry-After": "0", "retry-after-ms": "20"}, '{"error": {}}'
        if seen[request] == 2:
            return 500, {"retry-after-ms": "20"}, "oops"
        if "questions that the passage answers" in asked and "Gate 1." in asked:
            return 200, {}, completion('{"questions": [{"question": "Who')  # always cut off
        if body["seed"] == 13 and "from what you know" in asked:
            return 200, {}, "<html>not a completion</html>"
        return good(number, body)

    with proxy("", trouble) as server:
        counts = generate(path, out, server.url, "--model", "m", "--pairs", 6)
        first, asked = out.read_bytes(), server.asked.total()
        assert max(server.answered.values()) == 1
        assert counts["failed"] == {"malformed": 1}
        assert "Gate" not in counts["faults"][0] and "arden.example/1" in counts["faults"][0]
        again = generate(path, out, server.url, "--model", "m", "--pairs", 6)
        # The proxy's address is the same, so all answers come from the file.
        assert server.asked.total() == asked
    assert again["requests"] == 0 and again["tokens"] == 0
    assert again["reused"] == counts["requests"] + counts["reused"]
    assert out.read_bytes() == first
    kept = [json.loads(line) for line in out.with_suffix(".responses.jsonl").open()]
    assert len(kept) == counts["requests"]
    assert sum("<html>" in one["body"] for one in kept) >= 1  # paid for, and kept as it came
    assert {row.document_id for row in record.read_rows(out)} == {f"town/{n}" for n in range(4)}


def test_killed_in_the_middle_it_goes_on_and_repeats_no_answered_request(
    address: str, tmp_path: Path
) -> None:
    path, out = written(tmp_path, 6), tmp_path / "written.parquet"
    log = out.with_suffix(".responses.jsonl")
    with proxy(address) as server:
        options = ["--model", "m", "--pairs", "2", "--unanswerable", "1", "--concurrency", "2"]
        command = [BIN / "curate", "generate", "llm", path, "--out", out]
        command += ["--endpoint", server.url, *options]
        process = subprocess.Popen(
            list(map(str, command)),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            if log.exists() and log.read_bytes().count(b"\n") >= 5:
                break
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert not out.exists()
        kept = log.read_bytes()
        counts = generate(path, out, server.url, *options)
    assert log.read_bytes().startswith(kept)
    before = kept.count(b"\n")
    assert before >= 5
    # What was on its way when the process died is the only thing that may be asked again.
    repeated = sum(number - 1 for number in server.asked.values())
    assert repeated <= 2
    assert server.asked.total() - repeated == before + counts["requests"]
    assert counts["reused"] >= before
    bodies = [json.loads(line)["body"] for line in log.open()]
    assert all(json.loads(body)["choices"] for body in bodies)
    assert counts["written"] == counts["rows"] + sum(counts["dropped"].values())
    assert counts["written"] > 0


def test_a_real_small_model_writes_in_the_schema(address: str, gate: Path, tmp_path: Path) -> None:
    counts = generate(gate, tmp_path / "written.parquet", address, "--pairs", 3)
    assert counts["written"] >= 3 and not counts["failed"].get("not_answered")


def test_endpoint_local_starts_a_model_and_remembers_it(gate: Path, tmp_path: Path) -> None:
    out = tmp_path / "written.parquet"
    more = ("--pairs", 1, "--unanswerable", 0)
    first = generate(gate, out, "local", *more)
    again = generate(gate, out, "local", *more)
    assert first["requests"] > 0 and again["requests"] == 0  # though its port is another


def test_the_budget_ends_a_run_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    path, out = written(tmp_path, 6), tmp_path / "written.parquet"
    with proxy("", good) as server:
        more = ("--model", "m", "--budget", 6000, "--concurrency", 1)
        counts = generate(path, out, server.url, *more)
        assert 0 < counts["waiting"] < 6 and 3000 < counts["tokens"] <= 6000
        first = {row.id for row in record.read_rows(out)}
        assert first
        asked = server.asked.total()
        whole = generate(path, out, server.url, "--model", "m")
        assert whole["waiting"] == 0 and first < {row.id for row in record.read_rows(out)}
        assert server.asked.total() == asked + whole["requests"]
    assert max(server.asked.values()) == 1


def test_a_dry_run_shows_every_prompt_and_asks_nobody(tmp_path: Path) -> None:
    path, out = written(tmp_path, 2), tmp_path / "written.parquet"
    with proxy("", good) as server:
        shown = generate(path, out, server.url, "--dry-run", "--prices", 1, 4)
        assert server.asked.total() == 0
    assert len(shown["prompts"]) == 2 * 3
    assert any("Gate 1." in asks[-1]["content"] for asks in shown["prompts"])
    assert shown["estimate"]["requests"] == 2 * (3 + 2 * 5)
    assert shown["estimate"]["cost"] > 0
    assert not out.exists() and not out.with_suffix(".responses.jsonl").exists()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, '{"error": {"message": "wrong key"}}', "wrong key"),
        (429, '{"error": {"message": "pay first", "code": "insufficient_quota"}}', "pay first"),
        (400, '{"error": {"message": "no response_format here"}}', "no response_format here"),
        (503, "busy", "asks to come back in 7,200 seconds"),
    ],
)
def test_a_server_of_no_use_is_told_and_what_was_answered_kept(
    tmp_path: Path, status: int, body: str, said: str
) -> None:
    path, out = written(tmp_path, 8), tmp_path / "written.parquet"

    def trouble(number: int, asked: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        if number <= 3 and status != 400:
            return good(number, asked)
        return status, {"Retry-After": "7200"}, body

    with proxy("", trouble) as server:
        done = run_command(
            "curate", "generate", "llm", path, "--out", out,
            "--endpoint", server.url, "--model", "m",
        )  # fmt: skip
        assert server.asked.total() < 12
    assert done.returncode == 1
    assert said in done.stderr and "Traceback" not in done.stderr
    kept = out.with_suffix(".responses.jsonl").read_bytes().count(b"\n")
    assert kept == (0 if status == 400 else 3)


def test_what_is_on_its_way_when_a_server_fails_is_waited_for_and_kept(tmp_path: Path) -> None:
    path, out = written(tmp_path, 3), tmp_path / "written.parquet"

    def trouble(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        if number > 1:
            return 401, {}, '{"error": {"message": "no longer"}}'
        time.sleep(2)
        return good(number, body)

    with proxy("", trouble) as server:
        done = run_command(
            "curate", "generate", "llm", path, "--out", out,
            "--endpoint", server.url, "--model", "m", "--concurrency", 2,
        )  # fmt: skip
        assert server.asked.total() == 2
    assert done.returncode == 1 and "no longer" in done.stderr
    assert out.with_suffix(".responses.jsonl").read_bytes().count(b"\n") == 1


def test_one_passage_too_long_does_not_end_the_run(tmp_path: Path) -> None:
    path, out = written(tmp_path, 3), tmp_path / "written.parquet"

    def trouble(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        if "Gate 0." in body["messages"][-1]["content"]:
            return 400, {}, '{"error": {"message": "the request exceeds the context size"}}'
        return good(number, body)

    with proxy("", trouble) as server:
        counts = generate(path, out, server.url, "--model", "m", "--concurrency", 1)
    assert counts["failed"]["not_answered"] == 2 or counts["failed"]["not_answered"] == 3
    assert {row.document_id for row in record.read_rows(out)} == {"town/1", "town/2"}


def test_two_runs_on_one_file_are_refused(tmp_path: Path) -> None:
    held = Responses(tmp_path / "w.responses.jsonl")
    done = run_command(
        "curate", "generate", "llm", written(tmp_path, 1), "--out", tmp_path / "w.parquet",
        "--endpoint", "http://127.0.0.1:9/v1", "--model", "m",
    )  # fmt: skip
    held.close()
    assert done.returncode == 1 and "another run" in done.stderr


def test_the_key_appears_nowhere(gate: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(ENVIRONMENT, "OPENAI_API_KEY", "sk-very-secret")
    with proxy("", good) as server:
        generate(gate, tmp_path / "written.parquet", server.url, "--model", "m")
    for path in tmp_path.iterdir():
        assert b"sk-very-secret" not in path.read_bytes()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text()), max_size=8), st.integers(0, 400))
def test_a_line_cut_anywhere_costs_no_other_line(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("kept") / "responses.jsonl"
    kept = Responses(path)
    ends = []
    for key, body in entries:
        kept.append(key, body)
        ends.append(path.stat().st_size)
    kept.close()
    raw = path.read_bytes()[:cut]
    path.write_bytes(raw)
    after = Responses(path)
    after.append("new", "the last")
    after.close()
    read = Responses(path)
    whole = [entry for entry, end in zip(entries, ends, strict=True) if end <= cut]
    seen = Counter[str]()
    for key, body in whole:
        assert read.get(key, seen[key]) == body.encode("utf-8", "replace").decode()
        seen[key] += 1
    assert read.get("new", 0) == "the last"
    read.close()


def test_usage_is_counted_from_what_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        kept = Responses(tmp_path / "r.jsonl")
        kept.append("a", completion("x"))
        kept.append("a", "not json")
        kept.close()
    assert kept.paid == Usage(200, 40)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m3.5s"},
            63.5,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "9s"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_wants_us_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Joan Pell", "Joan Pell"),
        ("joan pell.", "Joan Pell"),
        ("1423.", "1423"),
        ("423", None),
        ("", None),
        (".", None),
        ("yes", None),
    ],
)
def test_an_answer_is_taken_as_the_passage_writes_it(answer: str, found: str | None) -> None:
    span = checks.span_of(GATE, answer)
    assert (span and span[0]) == found
    if span:
        assert GATE[span[1] :].startswith(span[0])


def test_reasons_take_turns_over_the_passages() -> None:
    from curate.generate.llm.write import Wanted, requests

    wanted = Wanted(pairs=1, unanswerable=1, reasons=("false_premise", "out_of_scope"))
    source = passages.Source("here", Passage(GATE))
    asked = [[reason for reason, _, _ in requests(n, source, wanted)] for n in range(4)]
    assert asked == [["", "false_premise"], ["", "out_of_scope"]] * 2


def test_a_fence_around_json_is_no_fault() -> None:
    text = '```json\n{"questions": [{"question": "Who?", "answer": "She"}]}\n```'
    assert prompts.read_pairs(text) == [("Who?", "She")]
    for useless in ("Sure! Here are some questions.", "[]", '{"questions": [{"question": "Who'):
        with pytest.raises(ValueError, match="not the JSON asked for"):
            prompts.read_pairs(useless)


def test_of_a_reply_that_was_cut_off_the_whole_questions_are_read() -> None:
    whole = json.dumps({"questions": [{"question": "Who?", "answer": "She"}] * 2})
    for end in range(len(whole)):
        cut = whole[:end]
        pairs = cut.count('"She"')
        if pairs:
            assert prompts.read_pairs(cut) == [("Who?", "She")] * pairs
        else:
            with pytest.raises(ValueError, match="not the JSON asked for"):
                prompts.read_pairs(cut)


def test_tokens_are_set_aside_before_they_are_spent(tmp_path: Path) -> None:
    kept = Responses(tmp_path / "r.jsonl")
    spending = asking.Spending(100, kept)
    spending.reserve(60)
    with pytest.raises(asking.BudgetSpent):
        spending.reserve(60)
    kept.close()
