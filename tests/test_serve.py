"""The server, asked by the clients that people use."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving import Served, serving

from abstain.answerer import load_answerer
from abstain.cascade import assemble
from abstain.queue import Queue
from abstain.router import PLAIN
from curate.record import Row

CONTEXT = "The gate of Arden is painted red. It was built in 1500 by the masons of Corby."
QUESTION = "What colour is the gate of Arden?"


@pytest.fixture(scope="module")
def server(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that answers or escalates."""
    with serving(tiny_run, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def expected(tiny_run: Path) -> dict[str, Any]:
    """What the same run decides without a server."""
    cascade = assemble(load_answerer(str(tiny_run)), PLAIN)
    [outcome] = cascade.run([Row(QUESTION, CONTEXT)])
    look = outcome.looks[0]
    return {"model_answer": look.text, "passes": outcome.decision.action == "answer", "look": look}


def client(server: Served, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, **more)


def test_the_decision_is_the_one_that_the_command_line_makes(
    server: Served, expected: dict[str, Any]
) -> None:
    found = server.ask(QUESTION, CONTEXT)
    assert found["model_answer"] == expected["model_answer"]
    assert (found["action"] == "answer") == expected["passes"]
    signals, own = found["signals"], expected["look"].signals
    assert signals["p_abstain"] == pytest.approx(own["p_abstain"], abs=1e-3)
    assert found["guarantee"] == "no guarantee" and found["threshold"] is not None
    entries = (server.state / "decisions.jsonl").read_text().splitlines()
    assert json.loads(entries[-1])["id"] == found["id"] and CONTEXT not in entries[-1]


@pytest.mark.parametrize("role", ["field", "system", "developer", "tool"])
def test_openais_client_gives_the_context_in_any_of_its_ways(
    server: Served, expected: dict[str, Any], role: str
) -> None:
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    extra: dict[str, Any] = {"context": CONTEXT}
    if role != "field":
        extra = {}
        more = {"tool_call_id": "t"} if role == "tool" else {}
        messages.insert(0, {"role": role, "content": CONTEXT, **more})
    said = client(server).chat.completions.create(
        model="any", messages=messages, temperature=0.3, max_tokens=50, extra_body=extra
    )
    decision = said.model_extra["decision"]  # type: ignore[index]
    assert decision["model_answer"] == expected["model_answer"]
    assert said.choices[0].message.content == decision["answer"]
    assert said.usage is not None and said.usage.prompt_tokens > 20
    assert [model.id for model in client(server).models.list()] == ["run"]


def test_openais_client_streams_what_has_been_decided(server: Served) -> None:
    messages: Any = [{"role": "system", "content": CONTEXT}, {"role": "user", "content": QUESTION}]
    whole = client(server).chat.completions.create(model="m", messages=messages)
    parts = list(
        client(server).chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage is not None and parts[-2].choices[0].finish_reason == "stop"

    async def asked() -> str:
        other = openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="none")
        stream = await other.chat.completions.create(model="m", messages=messages, stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in stream])

    assert asyncio.run(asked()) == text


def test_langchain_asks_it_too(server: Served, expected: dict[str, Any]) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="run", base_url=f"{server.address}/v1", api_key="none")  # type: ignore[arg-type]
    said = model.invoke([("system", CONTEXT), ("user", QUESTION)])
    pieces = list(model.stream([("system", CONTEXT), ("user", QUESTION)]))
    assert said.content == "".join(str(piece.content) for piece in pieces)


def test_curl_asks_it_too(server: Served) -> None:
    body = json.dumps({"question": QUESTION, "context": CONTEXT})
    done = subprocess.run(
        ["curl", "-sS", f"{server.address}/v1/ask", "-H", "content-type: application/json",
         "-d", body],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["question"] == QUESTION


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no question"),
        ({"messages": [{"role": "user", "content": "q"}], "n": 2}, "one answer is given"),
        ({"messages": [{"role": "user", "content": "q"}], "tools": [{}]}, "no tool is ever"),
        ({"messages": [{"role": "user", "content": "q"}], "logprobs": True}, "among the signals"),
        (
            {"messages": [{"role": "user", "content": "q"}], "response_format": {"type": "json"}},
            "answers are text",
        ),
        ({"messages": [{"role": "user", "content": "q"}], "context": "long " * 5000}, "tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_reason(
    server: Served, body: dict[str, Any], message: str
) -> None:
    answer = httpx.post(f"{server.address}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


def test_what_is_escalated_is_in_the_queue_once_and_comes_back_answered(server: Served) -> None:
    # Without a context so small a model never passes; if it did, nothing would be escalated.
    first = server.ask("Who painted it?", "", id="ticket/17")
    assert first["action"] == "escalate" and first["id"] == "anyone:ticket/17"
    assert "passed your question on" in first["answer"]
    again = server.ask("Who painted it?", "", id="ticket/17")
    assert again["id"] == first["id"]
    conflict = {"question": "Another?", "id": "ticket/17"}
    answer = httpx.post(f"{server.address}/v1/ask", json=conflict, timeout=60)
    assert answer.status_code == 409 and "another question" in answer.json()["error"]["message"]
    queue = f"{server.address}/v1/queue"
    listed = httpx.get(queue, params={"limit": 500}).json()["items"]
    assert [one["id"] for one in listed].count("anyone:ticket/17") == 1
    assert all("decision" not in one for one in listed)  # it would sway whoever answers
    held = httpx.post(f"{queue}/claim", json={"person": "ann", "id": "anyone:ticket/17"}).json()
    assert held["claimed_by"] == "ann" and held["question"] == "Who painted it?"
    said = {"person": "ben", "sufficient": False, "reason": "no_context"}
    assert httpx.post(f"{queue}/anyone:ticket/17/answer", json=said).status_code == 409
    done = httpx.post(f"{queue}/anyone:ticket/17/answer", json={**said, "person": "ann"})
    assert done.status_code == 200
    found = httpx.get(f"{queue}/anyone:ticket/17").json()
    assert found["status"] == "answered" and found["reply"]["reason"] == "no_context"
    assert found["decision"]["action"] == "escalate"
    assert httpx.get(f"{queue}/nobodys").status_code == 404


def test_health_metrics_and_the_policy_are_told(server: Served) -> None:
    server.ask(QUESTION, CONTEXT)
    assert httpx.get(f"{server.address}/healthz").json() == {"status": "alive"}
    text = httpx.get(f"{server.address}/metrics").text
    assert "abstain_decisions_total{action=" in text and "abstain_decision_seconds_bucket" in text
    policy = httpx.get(f"{server.address}/v1/policy").json()
    assert policy["guarantee"] == "no guarantee" and "otherwise: decline" in policy["policy"]
    other = {"origin": "http://elsewhere.example"}
    answer = httpx.get(f"{server.address}/v1/policy", headers=other)
    assert "access-control-allow-origin" not in answer.headers


def test_keys_open_what_they_are_for_and_are_nowhere_to_be_read(
    tiny_run: Path, tmp_path: Path
) -> None:
    from helpers import run_command

    state = tmp_path / "service"
    secrets = {}
    for name, scope in (("bot", "ask"), ("ann", "people")):
        done = run_command("abstain", "keys", "add", name, "--for", scope, "--state", state)
        assert done.returncode == 0, done.stderr
        secrets[name] = done.stdout.strip()
    assert run_command("abstain", "keys", "add", "bot", "--state", state).returncode == 1
    with serving(tiny_run, state) as server:

        def status(path: str, name: str = "", secret: str = "") -> int:
            header = {"authorization": f"Bearer {secret or secrets.get(name, '')}"}
            return httpx.get(
                server.address + path, headers=header if name or secret else {}
            ).status_code

        assert status("/healthz") == 200 and status("/v1/models") == 401
        assert status("/v1/models", secret="ga-wrong") == 401  # noqa: S106
        assert status("/v1/models", "bot") == 200 and status("/v1/queue", "bot") == 401
        assert status("/v1/queue", "ann") == 200
        for name in ("bot", "ann"):
            run_command("abstain", "keys", "remove", name, "--state", state)
        assert status("/v1/models", "bot") == 401
        assert status("/v1/queue") == 401  # the last key taken away does not open the door
    for file in state.rglob("*"):
        if file.is_file():
            assert not any(secret.encode() in file.read_bytes() for secret in secrets.values())


def test_others_may_only_ask_with_a_key(tiny_run: Path, tmp_path: Path) -> None:
    from helpers import run_command

    done = run_command("abstain", "serve", tiny_run, "--host", "0.0.0.0", "--state", tmp_path)  # noqa: S104
    assert done.returncode == 1 and "abstain keys add" in done.stderr


def test_a_share_of_all_questions_is_audited_by_a_coin(tiny_run: Path, tmp_path: Path) -> None:
    policy = "rules: [{action: answer}]\naudit_share: 0.4\n"
    with serving(tiny_run, tmp_path / "service", policy) as server:
        queue = Queue(server.state / "queue.sqlite")
        found = [server.ask(QUESTION, CONTEXT, id=f"q{n}") for n in range(40)]
        audited = sorted(one.id for one in queue.items())
        for n in range(40):
            server.ask(QUESTION, CONTEXT, id=f"q{n}")
        assert sorted(one.id for one in queue.items()) == audited  # the coin falls the same way
    assert 5 < len(audited) < 30
    assert not any("audited" in one for one in found)  # who asks is not told
    assert {(one.inclusion, one.audited) for one in queue.items()} == {(0.4, True)}
    entries = (server.state / "decisions.jsonl").read_text().splitlines()
    assert sum(json.loads(entry)["audited"] for entry in entries) == 2 * len(audited)


def test_any_openai_compatible_model_can_stand_behind_it(address: str, tmp_path: Path) -> None:
    with serving(address, tmp_path / "service") as server:
        found = server.ask("How much is the day pass?", "The day pass costs £6.")
        assert found["rule"] in ("uncalibrated", "model_abstained")
        assert found["guarantee"] == "no guarantee" and "mean_log_likelihood" in found["signals"]


def test_a_policy_may_forbid_streams(tiny_run: Path, tmp_path: Path) -> None:
    with serving(tiny_run, tmp_path / "service", "stream: false\n") as server:
        body = {"messages": [{"role": "user", "content": "q"}], "stream": True}
        answer = httpx.post(f"{server.address}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 400 and "does not stream" in answer.text
    assert shutil.which("curl")
