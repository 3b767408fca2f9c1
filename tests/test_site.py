"""A folder of HTML files: passages by heading, and the pairs of FAQ pages."""

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
    return site.sections(BeautifulSoup(body, "lxml"))


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
        ("<blockquote><p>Said.</p></blockquote><pre>a  b\n c</pre>", ["Said.", "a b c"]),
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
    st.lists(st.tuples(phrases, phrases), min_size=1, max_size=5, unique_by=lambda pair: pair[0])
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
        assert row.answers == ["Two pounds. Or three. Cash Card Bye"]


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
    message = r"page.html: JSON-LD block 2, line 2 of it: not valid JSON"
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


def test_page_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.html").write_bytes(b"<p>caf\xe9</p>")
    with pytest.raises(UserError, match=r"old.html: not valid UTF-8: byte 0xe9 at offset 6"):
        site.read(str(tmp_path), "s")
