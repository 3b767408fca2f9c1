"""Cleaning: what is repaired, what survives, and that answers are found again."""

import pytest
from curate_helpers import make_row
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.clean import clean, clean_text
from curate.recipe import CleanSettings
from curate.record import NOT_A_SPAN, Dropped, Row

SETTINGS = CleanSettings()
DIRT = [
    "<b>", "</p>", "<br/>", "<!-- x -->", "<", ">", "x < 3", "&amp;", "&lt;", "&#62;", "amp;",
    "Ã©", "â€™", "»ß", "ﬁ", "e\u0301", "ｱ", " ", "\n", "\r\n", "\u2028", "\u00a0", "\u200b",
    "\u00ad", "\x85", "\x0c", "\x1b[0m", "\ud800",
]  # fmt: skip
dirty = st.lists(st.sampled_from(DIRT) | st.text(max_size=6), max_size=14).map("".join)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("<p>One.</p><p>Two <b>three</b>.</p>", "One.\nTwo three."),
        ("A<br>B<br/>C", "A\nB\nC"),
        ("<ul>\n<li class='x'>one</li>\n<li>two</li></ul>", "one\n\ntwo"),
        ("kept<!-- a > b, not kept -->", "kept"),
        ("Fish &amp; chips &ndash; 5 &#8364;", "Fish & chips – 5 €"),
        ("R&D, AT&T; q&a", "R&D, AT&T; q&a"),
        ("&amp;lt;em&amp;gt;twice&amp;lt;/em&amp;gt;", "twice"),
        ("The caf\u00c3\u00a9\u00e2\u20ac\u2122s menu", "The café’s menu"),
        ("“curly” quotes’ stay", "“curly” quotes’ stay"),
        ("cafe\u0301", "café"),
        ("  a\t b\u00a0\u00a0c  ", "a b c"),
        ("a \n b\n\n\n\n c", "a\nb\n\nc"),
        ("zero\u200bwidth, so\u00adft, \ufeffmark", "zerowidth, soft, mark"),
        ("x < 3 and y > 2", "x < 3 and y > 2"),
        ("if a<5, b>7 or 2 <= n", "if a<5, b>7 or 2 <= n"),
        ("I <3 you", "I <3 you"),
        ("日本語 и русский", "日本語 и русский"),
    ],
)
def test_text_is_cleaned(raw: str, cleaned: str) -> None:
    assert clean_text(raw) == cleaned


@settings(max_examples=400, deadline=None)
@given(dirty)
def test_cleaning_what_is_clean_changes_nothing(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned


@settings(max_examples=200, deadline=None)
@given(dirty)
def test_clean_text_has_no_stray_white_space_and_nothing_invisible(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned == cleaned.strip()
    assert not set(cleaned) & set("\u200b\u00ad\ufeff\u00a0\t\r\u2028")
    assert "  " not in cleaned
    assert "\n\n\n" not in cleaned


@settings(max_examples=300, deadline=None)
@given(dirty, dirty.filter(str.strip), dirty, st.integers(-60, 60))
def test_kept_answers_stand_where_their_starts_say(
    before: str, answer: str, after: str, shift: int
) -> None:
    context = before + answer + after
    row = make_row("Q?", context, [answer], answer_starts=[max(0, len(before) + shift)])
    kept, dropped = clean([row], SETTINGS)
    assert len(kept) + len(dropped) == 1
    for cleaned in kept:
        assert cleaned.answers
        for text, start in zip(cleaned.answers, cleaned.answer_starts, strict=True):
            assert start >= 0
            assert cleaned.context[start : start + len(text)] == text
    for one in dropped:
        assert one.drop_reason in {"answer_not_found", "empty_context"}


def cleaned(row: Row) -> Row:
    kept, dropped = clean([row], SETTINGS)
    assert not dropped
    return kept[0]


def reason(row: Row, limits: CleanSettings = SETTINGS) -> tuple[str, str]:
    kept, dropped = clean([row], limits)
    assert not kept
    (one,) = dropped
    assert isinstance(one, Dropped)
    assert one.step == "clean"
    return one.drop_reason, one.detail


@pytest.mark.parametrize(
    ("given_start", "found"), [(0, 4), (6, 4), (7, 4), (9, 12), (14, 12), (21, 20), (500, 20)]
)
def test_wrong_offset_is_repaired_to_the_nearest_occurrence(given_start: int, found: int) -> None:
    row = make_row("Who?", "and Ada and Ada and Ada", ["Ada"], answer_starts=[given_start])
    assert cleaned(row).answer_starts == [found]


def test_offset_moves_with_the_html_before_it() -> None:
    context = "<p>Ada met Bob.</p> <p>Then &amp; there Ada left.</p>"
    row = make_row("Who left?", context, ["Ada"], answer_starts=[context.rindex("Ada")])
    assert cleaned(row).context == "Ada met Bob.\nThen & there Ada left."
    assert cleaned(row).answer_starts == [cleaned(row).context.rindex("Ada")]


def test_long_html_before_the_answer_does_not_send_it_to_a_later_place() -> None:
    context = "<a href='https://example.org/a/long/address'>See</a> Ada. Then came another Ada."
    row = make_row("Who?", context, ["Ada"], answer_starts=[context.index("Ada")])
    assert cleaned(row).answer_starts == [len("See ")]


def test_answer_is_cleaned_as_its_context_is() -> None:
    row = make_row(
        "Where?", "At the Caf\u00c3\u00a9 <b>R&amp;D</b>.", ["Caf\u00c3\u00a9 <b>R&amp;D"]
    )
    assert cleaned(row).answers == ["Café R&D"]


def test_repeated_annotations_are_kept_once() -> None:
    row = make_row("Who?", "Ada left.", ["Ada", "Ada", "Ada left"])
    assert cleaned(row).answers == ["Ada", "Ada left"]


def test_answer_that_is_no_span_is_kept_as_it_is() -> None:
    row = make_row("Did Ada leave?", "Ada left.", [" yes "], answer_starts=[NOT_A_SPAN])
    assert (cleaned(row).answers, cleaned(row).answer_starts) == (["yes"], [NOT_A_SPAN])


def test_content_hash_follows_the_cleaned_text_and_the_id_stays() -> None:
    row = make_row("Who&#63;", "Ada <i>left</i>.", ["Ada"])
    assert cleaned(row).id == row.id
    assert cleaned(row).content_hash == cleaned(row).current_content_hash() != row.content_hash


def test_answer_that_is_not_in_the_context_drops_the_row() -> None:
    row = make_row("Who?", "Ada left.", ["Bob", "Carol"], answer_starts=[0, 4])
    assert reason(row) == ("answer_not_found", "Bob; Carol")


def test_one_lost_answer_of_two_does_not_drop_the_row() -> None:
    row = make_row("Who?", "Ada left.", ["Bob", "Ada"], answer_starts=[0, 0])
    assert cleaned(row).answers == ["Ada"]


def test_sufficient_row_without_any_answer_is_dropped() -> None:
    assert reason(make_row("Who?", "Ada left.", sufficient=True))[0] == "no_answer"


@pytest.mark.parametrize("context", ["", " \n ", "<p></p>", "\u200b"])
def test_empty_context_drops_a_sufficient_row_only(context: str) -> None:
    row = make_row("Who?", context, ["Ada"], answer_starts=[0])
    assert reason(row)[0] == "empty_context"
    assert cleaned(make_row("Who?", context)).context == ""
    assert cleaned(make_row("Who?", context, sufficient=None)).context == ""


@pytest.mark.parametrize("question", ["", " ", "<br>"])
def test_empty_question_drops_the_row(question: str) -> None:
    assert reason(make_row(question, "Ada left."))[0] == "empty_question"


def test_text_that_is_too_long_drops_the_row_and_names_length_and_setting() -> None:
    limits = CleanSettings(max_context_chars=50, max_question_chars=20)
    assert clean([make_row("q" * 20, "c" * 50)], limits)[1] == []
    assert reason(make_row("q", "c" * 51), limits) == (
        "context_too_long",
        "51 characters, at most 50 (clean.max_context_chars)",
    )
    assert reason(make_row("q" * 21, "c"), limits)[0] == "question_too_long"
