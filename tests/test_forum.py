"""Forums: Discourse, Stack Exchange and QAPage, in their own forms, and what threads become."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import curate
from web_server import WebServer, plain, serving

from curate.errors import UserError
from curate.record import Row, read_rows
from curate.sources.forum import discourse, stack_exchange
from curate.sources.forum.thread import Reply, Thread, to_row


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serving() as server:
        yield server


def check_span(row: Row) -> None:
    (answer,), (start,) = row.answers, row.answer_starts
    assert row.context[start : start + len(answer)] == answer


def test_place_and_votes_do_not_tell_which_reply_was_accepted() -> None:
    replies = [
        Reply("Late and accepted.", True, 1, "2026-03-03"),
        Reply("Early.", False, 9, "2026-01-01"),
        Reply("Between.", False, 0, "2026-02-02"),
    ]
    row = to_row(Thread("Why?", "It does not run.", replies, "7"), "forum")
    undated = [Reply(one.text, one.accepted) for one in replies]
    contexts = {
        to_row(Thread("Why?", "", order), "f").context for order in (undated, undated[::-1])
    }
    assert len(contexts) == 1  # not even the order of a page that puts the accepted one first
    assert row.context == "It does not run.\n\nEarly.\n\nBetween.\n\nLate and accepted."
    assert (row.answers, row.sufficient) == (["Late and accepted."], True)
    assert row.votes == {"accepted": 1.0, "upvotes": 1.0}
    assert row.published_at == "2026-03-03"
    check_span(row)


def test_thread_without_an_accepted_reply_has_no_label_and_a_proposal() -> None:
    row = to_row(Thread("Why?", "", [Reply("So."), Reply("Or so.", score=2)], "7"), "forum")
    assert (row.sufficient, row.answers, row.votes) == (None, ["Or so."], {"upvotes": 2.0})
    check_span(row)
    row = to_row(Thread("Why?", "Text.", [Reply("Hm.", score=-1)], "7"), "forum")
    assert (row.sufficient, row.answers) == (None, [])
    assert to_row(Thread("Why?"), "forum").context == ""


def post(number: int, text: str, likes: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "id": 100 + number,
        "post_number": number,
        "cooked": f"<p>{text}</p><aside class='quote'>as Ada said</aside>",
        "created_at": f"2026-01-{number:02}T10:00:00.000Z",
        "actions_summary": [{"id": 2, "count": likes}],
        **fields,
    }


def topic(identifier: int, *posts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    stream = {"posts": list(posts), "stream": [one["id"] for one in posts]}
    return {"id": identifier, "title": f"Why topic {identifier}?", "post_stream": stream, **fields}


def test_discourse_is_read_by_its_json(web: WebServer, tmp_path: Path) -> None:
    shell = "<meta name='generator' content='Discourse 3.4.0'><a href='/about'>About</a>"
    solved = topic(
        1, post(1, "It breaks."), post(2, "No idea.", 5), post(3, "Oil it.", accepted_answer=True),
        post(4, "", action_code="closed.enabled"),
    )  # fmt: skip
    long = topic(2, *(post(n, f"Post {n}.") for n in range(1, 3)))
    long["post_stream"]["stream"] = [100 + n for n in range(1, 6)]
    first = {"topics": [{"id": 1}], "more_topics_url": "/latest?page=1"}
    pages: dict[str, Any] = {
        "/latest.json": {"topic_list": first},
        "/latest.json?page=1": {"topic_list": {"topics": [{"id": 2}]}},
        "/t/1.json": solved,
        "/t/2.json": long,
        "/t/2.json?page=2": topic(2, post(3, "Post 3."), post(4, "Post 4.", 3)),
        "/t/2.json?page=3": topic(2, post(5, "Post 5.")),
    }
    web.pages |= {
        path: plain(json.dumps(value), Content_Type="application/json; charset=utf-8")
        for path, value in pages.items()
    }
    web.html("/", shell)
    out = tmp_path / "forum.parquet"
    done = curate("scrape", web.url, "--allow-private", "--delay", 0, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    one, two = sorted(read_rows(out), key=lambda row: row.source_id)
    assert (one.question, one.answers, one.sufficient) == ("Why topic 1?", ["Oil it."], True)
    assert one.context == "It breaks.\n\nNo idea.\n\nOil it."
    assert (one.url, one.published_at) == (f"{web.url}/t/1", "2026-01-03T10:00:00.000Z")
    assert (two.sufficient, two.answers, two.votes) == (None, ["Post 4."], {"upvotes": 3.0})
    assert two.context.split("\n\n") == [f"Post {n}." for n in range(1, 6)]
    assert web.asked["/about"] == 0
    assert json.loads(done.stdout)["unlabelled"] == 1


def test_saved_discourse_topics_are_imported(tmp_path: Path) -> None:
    folder = tmp_path / "topics"
    folder.mkdir()
    (folder / "1.json").write_text(
        json.dumps(topic(1, post(1, "Text."), post(2, "So."), accepted_answer={"post_number": 2}))
    )
    (row,) = discourse.read(str(folder), "forum", base_url="https://forum.example")
    assert (row.answers, row.sufficient, row.url) == (["So."], True, "https://forum.example/t/1")
    (folder / "2.json").write_text("{")
    with pytest.raises(UserError, match=r"2.json: not valid JSON"):
        list(discourse.read(str(folder), "forum"))


POSTS = """<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="1" PostTypeId="1" AcceptedAnswerId="4" CreationDate="2020-01-01T00:00:00.000" Score="5"
    Title="How do I oil it?" Body="&lt;p&gt;It squeaks.&lt;/p&gt;" ContentLicense="CC BY-SA 4.0" />
  <row Id="2" PostTypeId="1" CreationDate="2020-01-02T00:00:00.000" Score="0" Title="Why?"
    Body="&lt;p&gt;Tell me.&lt;/p&gt;" />
  <row Id="3" PostTypeId="2" ParentId="1" CreationDate="2020-01-03T00:00:00.000" Score="9"
    Body="&lt;p&gt;Buy another.&lt;/p&gt;" />
  <row Id="4" PostTypeId="2" ParentId="1" CreationDate="2020-01-04T00:00:00.000" Score="2"
    Body="&lt;p&gt;With oil &amp;amp; care:&lt;/p&gt;&lt;pre&gt;oil()&#xA;  wait()&lt;/pre&gt;" />
  <row Id="5" PostTypeId="4" Body="a tag's wiki" />
</posts>
"""


def test_dump_is_read_with_accepted_answers(tmp_path: Path) -> None:
    (tmp_path / "Posts.xml").write_text(POSTS)
    one, two = stack_exchange.read(
        str(tmp_path / "Posts.xml"), "bikes", base_url="https://bikes.example"
    )
    assert (one.question, one.sufficient) == ("How do I oil it?", True)
    assert one.answers == ["With oil & care:\noil()\n  wait()"]
    assert one.context.startswith("It squeaks.\n\nBuy another.\n\nWith oil")
    assert (one.licence, one.url) == ("CC BY-SA 4.0", "https://bikes.example/q/1")
    assert (one.votes["upvotes"], one.published_at) == (2.0, "2020-01-04T00:00:00.000")
    check_span(one)
    assert (two.question, two.sufficient, two.answers) == ("Why?", None, [])


def test_broken_dump_is_named_by_line_and_no_entity_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "Posts.xml"
    path.write_text(POSTS.replace("</posts>", "<row"))
    with pytest.raises(UserError, match=r"Posts.xml: line 1\d: not valid XML"):
        list(stack_exchange.read(str(path), "bikes"))
    secret = tmp_path / "secret"
    secret.write_text("secret")
    head = f"<!DOCTYPE posts [<!ENTITY s SYSTEM 'file://{secret}'>]>"
    path.write_text(POSTS.replace("<posts>", f"{head}<posts>&s;"))
    assert "secret" not in "".join(row.context for row in stack_exchange.read(str(path), "bikes"))


def test_api_responses_are_read_with_answers_inside_or_apart(tmp_path: Path) -> None:
    answer = {"answer_id": 4, "question_id": 1, "body": "<p>Oil it.</p>", "is_accepted": True,
              "score": 2, "creation_date": 1578096000}  # fmt: skip
    question = {"question_id": 1, "title": "What&#39;s squeaking?", "body": "<p>It is.</p>",
                "link": "https://bikes.example/q/1", "content_license": "CC BY-SA 4.0",
                "creation_date": 1577836800}  # fmt: skip
    inside = tmp_path / "one.json"
    inside.write_text(json.dumps({"items": [question | {"answers": [answer]}]}))
    (row,) = stack_exchange.read(str(inside), "bikes")
    assert (row.question, row.answers) == ("What's squeaking?", ["Oil it."])
    assert (row.published_at, row.licence) == ("2020-01-04T00:00:00+00:00", "CC BY-SA 4.0")
    apart = tmp_path / "apart"
    apart.mkdir()
    (apart / "1.json").write_text(json.dumps({"items": [question]}))
    (apart / "2.json").write_text(json.dumps({"items": [answer]}))
    (same,) = stack_exchange.read(str(apart), "bikes")
    assert same == row
    inside.write_text(json.dumps({"items": [{"title": "x"}]}))
    with pytest.raises(UserError, match=r"items\[0\]: field 'question_id' is missing"):
        list(stack_exchange.read(str(inside), "bikes"))


MICRODATA = """
<div itemscope itemtype="https://schema.org/QAPage"><div itemscope itemprop="mainEntity"
 itemtype="https://schema.org/Question"><h1 itemprop="name">Why does it squeak?</h1>
 <div itemprop="text">It squeaks all day.</div>
 {answers}</div></div>
"""
ANSWER = """<div itemscope itemprop="{kind}" itemtype="https://schema.org/Answer">
<span itemprop="upvoteCount">{votes}</span>
<time itemprop="dateCreated" datetime="{date}">long ago</time>
<div itemprop="text">{text}</div></div>"""


@pytest.mark.parametrize("form", ["microdata", "json-ld"])
def test_question_pages_of_any_forum_become_threads(
    web: WebServer, tmp_path: Path, form: str
) -> None:
    replies = [("suggestedAnswer", 7, "2026-01-01", "Buy another."),
               ("acceptedAnswer", 2, "2026-01-02", "Oil it.")]  # fmt: skip
    if form == "microdata":
        answers = "".join(
            ANSWER.format(kind=kind, votes=votes, date=date, text=text)
            for kind, votes, date, text in replies
        )
        body = MICRODATA.format(answers=answers)
    else:
        question: dict[str, Any] = {
            "@type": "Question", "name": "Why does it squeak?", "text": "<p>It squeaks all day.</p>"
        }  # fmt: skip
        for kind, votes, date, text in replies:
            question[kind] = {"text": text, "upvoteCount": votes, "dateCreated": date}
        page = {"@context": "https://schema.org", "@type": "QAPage", "mainEntity": question}
        body = f"<script type='application/ld+json'>{json.dumps(page)}</script><p>Nothing else.</p>"
    web.html("/t", body)
    out = tmp_path / "t.parquet"
    done = curate("scrape", f"{web.url}/t", "--allow-private", "--delay", 0, "--out", out)
    assert done.returncode == 0, done.stderr
    (row,) = [row for row in read_rows(out) if row.votes]
    assert (row.question, row.answers) == ("Why does it squeak?", ["Oil it."])
    assert row.context == "It squeaks all day.\n\nBuy another.\n\nOil it."
    assert (row.votes, row.published_at) == ({"accepted": 1.0, "upvotes": 2.0}, "2026-01-02")
