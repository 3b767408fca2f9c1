"""What pages say: passages by heading, and the pairs that they declare or show."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.record import Passage, Row
from curate.sources import site
from curate.web.page import decode
from curate.web.page import read as read_page
from curate.web.questions import is_question
from curate.web.sections import sections

words = st.text("abcdefgh", min_size=1, max_size=6)
phrases = st.lists(words, min_size=1, max_size=5).map(" ".join)


def page(tmp_path: Path, body: str, name: str = "page.html") -> tuple[list[Row], list[Passage]]:
    path = tmp_path / "site" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<!doctype html><html><body>{body}</body></html>", encoding="utf-8")
    return site.read(str(tmp_path / "site"), "s", "CC0-1.0", "https://example.org/")


def faq_script(*pairs: tuple[str, str]) -> str:
    entities = [
        {"@type": "Question", "name": q, "acceptedAnswer": {"@type": "Answer", "text": a}}
        for q, a in pairs
    ]
    value = {"@context": "https://schema.org", "@type": "FAQPage", "mainEntity": entities}
    return f'<script type="application/ld+json">{json.dumps(value)}</script>'


def texts(body: str) -> list[tuple[str, str]]:
    found = sections(BeautifulSoup(body, "lxml"))
    return [(section.heading, "\n".join(section.texts)) for section in found if section.texts]


def test_page_is_cut_at_its_headings_and_passages_know_their_path(tmp_path: Path) -> None:
    body = (
        "<main><h1>Bikes</h1><p>All about bikes.</p><h2>Prices</h2><p>One pound.</p><p>Or two.</p>"
        "<h3>Students</h3><p>Half.</p><h2>Hours</h2><ul><li>Monday</li><li>Friday</li></ul></main>"
    )
    rows, passages = page(tmp_path, body)
    assert rows == []
    assert [(p.heading, p.context) for p in passages] == [
        ("Bikes", "All about bikes."),
        ("Bikes › Prices", "One pound.\nOr two."),
        ("Bikes › Prices › Students", "Half."),
        ("Bikes › Hours", "Monday\nFriday"),
    ]
    assert {(p.document_id, p.source, p.licence, p.url) for p in passages} == {
        ("s/page.html", "s", "CC0-1.0", "https://example.org/page.html")
    }


def test_furniture_is_no_content(tmp_path: Path) -> None:
    body = (
        "<nav><p>Menu</p></nav><header><p>Logo</p></header><h1>T</h1><p>Text.</p>"
        "<aside><p>Ad</p></aside><script>var x;</script><style>p {}</style><!-- note -->"
        "<form><p>Search</p></form><footer><p>Imprint</p></footer>"
    )
    body += "<aside><details><summary>More?</summary>Ads.</details></aside>"
    rows, passages = page(tmp_path, body)
    assert rows == []
    assert [(p.heading, p.context) for p in passages] == [("T", "Text.")]


def test_a_page_with_one_pair_keeps_all_else_that_it_says(tmp_path: Path) -> None:
    body = (
        "<main><h1>Fees</h1><p>Riding is cheap.</p><h2>Late</h2>Returns cost <b>£5</b>.<br>Always."
        "<details><summary>Help?</summary><p>Call us.</p></details>"
        "<details><summary>Empty</summary></details><h2>Lost</h2>"
        "<section>Keys cost £9.</section>Badges too.</main>"
    )
    (row,), passages = page(tmp_path, body)
    assert (row.question, row.answers) == ("Help?", ["Call us."])
    assert [(p.heading, p.context) for p in passages] == [
        ("Fees", "Help?\nCall us."),
        ("Fees", "Riding is cheap."),
        ("Fees › Late", "Returns cost £5. Always.\nEmpty"),
        ("Fees › Lost", "Keys cost £9.\nBadges too."),
    ]


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("<p>One<br>two</p>", ["One two"]),
        ("<p>Hel<b>lo</b> <i>you</i></p>", ["Hello you"]),
        ("<p>Hel<b>lo</b><br>you</p>", ["Hello you"]),
        ("<ul><li>Fruit<ul><li>Apple</li><li>Pear</li></ul></li></ul>", ["Fruit", "Apple", "Pear"]),
        ("<ul><li><p>One.</p><p>Two.</p></li></ul>", ["One.", "Two."]),
        ("<div>Plain text <b>here</b><p>Then a paragraph.</p></div>",
         ["Plain text here", "Then a paragraph."]),
        ("<table><tr><th>Day</th><td>Monday</td></tr></table>", ["Day", "Monday"]),
        ("<dl><dt>Term</dt><dd>Meaning</dd></dl>", ["Term", "Meaning"]),
        ("<blockquote><p>Said.</p></blockquote><pre>a  b\n c</pre>", ["Said.", "a  b\n c"]),
        ("<p>5 &lt; 6 &amp; so</p>", ["5 < 6 & so"]),
        ("<div><div><div>Deep.</div></div></div><p> </p>", ["Deep."]),
    ],
)  # fmt: skip
def test_every_text_of_a_page_is_read_once_and_nothing_runs_together(
    body: str, lines: list[str]
) -> None:
    assert texts(f"<main><h1>T</h1>{body}</main>") == [("T", "\n".join(lines))]


blocks = st.recursive(
    phrases.map(lambda text: f"<p>{text}</p>"),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(["div", "section", "ul", "blockquote"]).map(
            lambda tag: (
                f"<ul><li>{'</li><li>'.join(parts)}</li></ul>"
                if tag == "ul"
                else f"<{tag}>{''.join(parts)}</{tag}>"
            )
        )
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(phrases, blocks), min_size=1, max_size=4))
def test_no_word_is_lost_doubled_or_moved(parts: list[tuple[str, str]]) -> None:
    body = "".join(f"<h2>{heading}</h2>{block}" for heading, block in parts)
    expected = re.sub(r"<[^>]*>", " ", "".join(block for _, block in parts)).split()
    assert " ".join(text for _, text in texts(f"<main>{body}</main>")).split() == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(phrases.map(lambda asked: f"{asked}?"), phrases),
        min_size=1,
        max_size=5,
        unique_by=lambda pair: pair[0],
    )
)
def test_pairs_of_both_kinds_of_faq_page_are_read_with_right_offsets(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    details = "".join(f"<details><summary>{q}</summary><p>{a}</p></details>" for q, a in pairs)
    for body in (faq_script(*pairs), details):
        rows, passages = page(tmp_path_factory.mktemp("faq"), f"<h1>Help</h1>{body}")
        assert [(row.question, row.answers) for row in rows] == [(q, [a]) for q, a in pairs]
        (passage,) = passages
        assert passage.heading == "Help"
        for row in rows:
            (answer,), (start,) = row.answers, row.answer_starts
            assert row.sufficient
            assert row.context == passage.context
            assert row.context[start : start + len(answer)] == answer
            assert row.context[:start].endswith(f"{row.question}\n")


def test_answers_of_several_paragraphs_do_not_run_together(tmp_path: Path) -> None:
    html = "<p>Two pounds.</p><p>Or <b>three</b>.</p><ul><li>Cash</li><li>Card</li></ul>Bye"
    details = f"<details><summary>How much?</summary>{html}</details>"
    for body in (faq_script(("How much?", html)), details):
        (row,), _ = page(tmp_path, body)
        assert row.answers == ["Two pounds.\nOr three.\nCash\nCard\nBye"]


@pytest.mark.parametrize("graph", [None, [], [3, {"@type": "WebPage"}], {"@type": "WebPage"}])
def test_json_ld_without_questions_makes_an_ordinary_page(tmp_path: Path, graph: object) -> None:
    script = json.dumps({"@type": "Organization", "@graph": graph})
    rows, passages = page(
        tmp_path, f'<script type="application/ld+json">{script}</script><p>Text.</p>'
    )
    assert rows == []
    assert [passage.context for passage in passages] == ["Text."]


def test_faq_inside_a_graph_is_found(tmp_path: Path) -> None:
    question = {"@type": "Question", "name": "Why?", "acceptedAnswer": [{"text": "So."}]}
    value = [{"@graph": [{"@type": ["WebPage", "FAQPage"], "mainEntity": question}]}]
    (row,), _ = page(
        tmp_path, f'<script type="application/ld+json">{json.dumps(value)}</script>'
    )  # fmt: skip
    assert (row.question, row.answers) == ("Why?", ["So."])


def test_broken_json_ld_is_named_by_file_and_place(tmp_path: Path) -> None:
    broken = faq_script(("Q?", "A")).replace("[{", "[\n[}{")
    message = r"page.html: JSON-LD block 2: not valid JSON: Expecting value: line 2"
    with pytest.raises(UserError, match=message):
        page(tmp_path, faq_script(("Why?", "So.")) + broken)


def test_pages_are_found_in_folders_and_read_in_order(tmp_path: Path) -> None:
    for name in ("b.html", "sub/a.HTM", "a.html"):
        page(tmp_path, f"<p>{name}</p>", name)
    (tmp_path / "site" / "notes.txt").write_text("not HTML")
    _, passages = site.read(str(tmp_path / "site"), "s")
    assert [p.document_id for p in passages] == ["s/a.html", "s/b.html", "s/sub/a.HTM"]
    assert passages[0].url == "a.html"


def test_folder_that_is_none_or_has_no_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: not a folder"):
        site.read(str(tmp_path / "nowhere"), "s")
    with pytest.raises(UserError, match=r"no .html file in this folder"):
        site.read(str(tmp_path), "s")


@pytest.mark.parametrize(
    ("raw", "declared"),
    [
        ("<p>café “so”</p>".encode(), None),
        ("<p>café “so”</p>".encode(), "latin-1"),  # a server's default, and wrong
        ("\ufeff<p>café “so”</p>".encode(), None),
        ("<p>café “so”</p>".encode("cp1252"), None),
        ("<p>café “so”</p>".encode("cp1252"), "utf-8"),
        ("<p>café “so”</p>".encode("cp1252"), "no-such-charset"),
        ("<p>café “so”</p>".encode("utf-16"), "utf-16"),
        ("<meta charset='cp1252'><p>café “so”</p>".encode("cp1252"), None),
    ],
)
def test_text_is_right_whatever_the_server_says_its_charset_is(
    raw: bytes, declared: str | None
) -> None:
    assert decode(raw, declared).endswith("<p>café “so”</p>")


def test_declared_charset_is_used_where_the_bytes_do_not_tell() -> None:
    raw = "<p>Привет</p>".encode("koi8-r")
    assert decode(raw, "koi8-r") == "<p>Привет</p>"
    page = b"<meta http-equiv='Content-Type' content='text/html; charset=koi8-r'>" + raw
    assert decode(page).endswith("<p>Привет</p>")


@pytest.mark.parametrize(
    "text",
    ["Why?", "1.2 Where is it kept?", "Q: Who pays?", "How do I pay", "What is a dock", "为什么？",
     "Can I bring a dog", "Why can’t I log in", "How does it end"],
)  # fmt: skip
def test_questions_are_known(text: str) -> None:
    assert is_question(text)


@pytest.mark.parametrize(
    "text",
    ["", "?", "What's new", "Refunds", "Show more", "Whatever you like", "How to pay", "1.2",
     "How long it lasts", "Where? " + "word " * 100, "Is a dog allowed. No.", "{m,n}?",
     "How do I…?", "... pay for it?"],
)  # fmt: skip
def test_what_asks_nothing_is_no_question(text: str) -> None:
    assert not is_question(text)


def test_a_question_that_begins_in_the_heading_above_is_read_whole(tmp_path: Path) -> None:
    body = "<h2>How do I…?</h2><p>Short answers.</p><h3>… pay?</h3><p>By card.</p>"
    (row,), passages = page(tmp_path, f"<main><h1>Help</h1>{body}</main>")
    assert (row.question, row.answers) == ("How do I pay?", ["By card."])
    assert "Short answers." in [passage.context for passage in passages]


PATTERNS = {
    "details": "<details><summary>Who pays?</summary><p>You do.</p></details>",
    "definition list": "<dl><dt>Who pays?</dt><dd><p>You do.</p></dd></dl>",
    "heading": "<h2>Who pays?</h2><p>You do.</p>",
    "numbered heading": "<h3>4. Who pays?</h3><div>You do.</div>",
    "labelled": "<h3>Q: Who pays?</h3><p>A: You do.</p>",
    "section": "<section><h2>Who pays?<a href='#who'>¶</a></h2><p>You do.</p></section>",
    "aria": "<h3><button aria-controls='p1'>Who pays?</button></h3>"
    "<div id='p1' hidden>You do.</div>",
    "bootstrap 5": "<div class='accordion-item'><h2 class='accordion-header'><button "
    "data-bs-toggle='collapse' data-bs-target='#c1'>Who pays?</button></h2><div id='c1'>"
    "<div class='accordion-body'>You do.</div></div></div>",
    "bootstrap 3": "<a data-toggle='collapse' href='#c2'>Who pays?</a><div id='c2'>You do.</div>",
    "classes": "<div class='faq-question'>Who pays?</div><div class='faq-answer'>You do.</div>",
    "microdata": "<div itemscope itemtype='https://schema.org/FAQPage'><div itemscope "
    "itemprop='mainEntity' itemtype='https://schema.org/Question'><b itemprop='name'>Who pays?</b>"
    "<div itemscope itemprop='acceptedAnswer' itemtype='https://schema.org/Answer'>"
    "<div itemprop='text'>You do.</div></div></div></div>",
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_gives_its_pair_once_and_takes_nothing_else(
    tmp_path: Path, pattern: str
) -> None:
    body = f"<main><h1>Help</h1><p>Before.</p>{PATTERNS[pattern]}<h2>Other</h2><p>After.</p></main>"
    (row,), passages = page(tmp_path, body)
    assert (row.question, row.answers) == ("Who pays?", ["You do."])
    assert (row.context, row.answer_starts, row.sufficient) == ("Who pays?\nYou do.", [10], True)
    texts = [p.context for p in passages]
    assert texts == ["Who pays?\nYou do.", "Before.", "After."]


@pytest.mark.parametrize(
    "body",
    [
        "<details><summary>Show more</summary><p>Text.</p></details>",
        "<dl><dt>dock</dt><dd>Where bikes stand.</dd></dl>",
        "<h2>Fees</h2><p>You do.</p>",
        "<details><summary>Empty?</summary></details>",
        "<h2>Empty?</h2>",
        "<nav><details><summary>Menu?</summary>Home</details></nav>",
        "<button aria-controls='gone'>Who?</button>",
    ],
)
def test_what_asks_nothing_or_answers_nothing_makes_no_pair(tmp_path: Path, body: str) -> None:
    rows, _ = page(tmp_path, f"<main><p>Text.</p>{body}</main>")
    assert rows == []


def test_declared_and_shown_pairs_are_the_same_ones(tmp_path: Path) -> None:
    shown = "<h2>Who pays?</h2><p>You do.</p><h2>Till when?</h2><p>June.</p>"
    script = faq_script(("Who pays?", "<p>You do.</p>"))
    rows, passages = page(tmp_path, f"<main><h1>H</h1><p>Other text.</p>{shown}{script}</main>")
    assert [(row.question, row.answers) for row in rows] == [
        ("Who pays?", ["You do."]),
        ("Till when?", ["June."]),
    ]
    assert [p.context for p in passages][1:] == ["Other text."]


def test_answer_holds_what_stands_beneath_with_its_own_headings_and_code(tmp_path: Path) -> None:
    body = (
        "<main><h2>General?</h2><h3>How do I ride?</h3><p>Like so:</p><pre>step 1\n  step 2</pre>"
        "<h4>Note</h4><p>Slowly.</p><h3>And then?</h3><p>Stop.</p><h2>Fees</h2><p>None.</p></main>"
    )
    rows, passages = page(tmp_path, body)
    assert [(row.question, row.answers[0], row.heading) for row in rows] == [
        ("How do I ride?", "Like so:\nstep 1\n  step 2\nNote\nSlowly.", "General?"),
        ("And then?", "Stop.", "General?"),
    ]
    assert [(p.heading, p.context) for p in passages][1:] == [("Fees", "None.")]


def test_many_pairs_are_put_into_contexts_that_a_model_can_read(tmp_path: Path) -> None:
    pairs = [(f"Question {n}?", f"Answer {n}. " + "word " * 150) for n in range(30)]
    body = "".join(f"<h2>{asked}</h2><p>{answer}</p>" for asked, answer in pairs)
    rows, passages = page(tmp_path, f"<main>{body}</main>")
    assert len(rows) == 30 and len({row.context for row in rows}) == len(passages) > 1
    for row in rows:
        assert len(row.context) <= 4_000
        (answer,), (start,) = row.answers, row.answer_starts
        assert row.context[start : start + len(answer)] == answer


def test_rows_and_passages_say_where_they_are_from(tmp_path: Path) -> None:
    body = (
        "<head><title>Help – Bikes</title></head><main><h1>Help</h1><h2>Money</h2>"
        "<h3>Who pays?</h3><p>You.</p><h2>Rest</h2><p>Text.</p></main>"
        "<footer><a rel='license' href='https://example.org/by'>Licence</a></footer>"
    )
    (row,), passages = page(tmp_path, body)
    assert (row.title, row.heading) == ("Help – Bikes", "Help › Money")
    assert (row.url, row.licence) == ("https://example.org/page.html", "https://example.org/by")
    assert row.content_hash == row.current_content_hash()
    assert {(p.title, p.licence) for p in passages} == {("Help – Bikes", "https://example.org/by")}
    assert passages[-1].heading == "Help › Rest"


def test_navigation_goes_also_where_no_element_names_the_content(tmp_path: Path) -> None:
    menu = "".join(f"<li><a href='/{n}'>Page number {n}</a></li>" for n in range(20))
    text = "".join(
        f"<p>Paragraph {n} tells at some length how the bikes of the town are kept in order.</p>"
        for n in range(12)
    )
    body = f"<div id='top'><ul>{menu}</ul></div><div><h1>Bikes</h1>{text}</div>"
    _, passages = page(tmp_path, body)
    found = "\n".join(p.context for p in passages)
    assert "Page number" not in found and found.count("Paragraph") == 12


def test_page_in_a_form_and_title_in_an_article_are_content(tmp_path: Path) -> None:
    body = "<form><main><article><header><h1>T</h1></header><p>Text.</p></article></main></form>"
    _, passages = page(tmp_path, body)
    assert [(p.heading, p.context) for p in passages] == [("T", "Text.")]


@settings(max_examples=200, deadline=None)
@given(st.text("<>/ah1dsumryetil=\"'&;#?! \n-", max_size=200))
def test_no_html_however_broken_stops_the_reading(text: str) -> None:
    found = read_page(f"<main>{text}", "p", "s", "u")
    for row in found.rows:
        (answer,), (start,) = row.answers, row.answer_starts
        assert row.question and row.context[start : start + len(answer)] == answer
