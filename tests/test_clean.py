"""Cleaning: what is repaired, what survives, and that answers are found again."""

from collections import Counter

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
        assert one.drop_reason in {"answer_not_found", "empty_context", "empty_answer"}


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


PAGE = "Skip to content\nAda left Rome in 1901.\nWe use cookies to improve this.\nShe came back."


def test_lines_of_a_page_go_and_answers_move_along() -> None:
    row = make_row("When?", PAGE, ["1901"], evidence=[(16, 38)])
    found = cleaned(row)
    assert found.context == "Ada left Rome in 1901.\nShe came back."
    assert found.answer_starts == [found.context.index("1901")]
    assert found.evidence == [(0, len("Ada left Rome in 1901."))]
    kept, _ = clean([row], CleanSettings(boilerplate=False))
    assert kept[0].context == PAGE


def test_what_was_edited_is_counted_by_rule() -> None:
    edits: Counter[str] = Counter()
    rows = [make_row("<b>Who</b>?", PAGE, ["Ada"]), make_row("Who  left?", "R&amp;D left.", ["R"])]
    clean(rows, SETTINGS, edits)
    assert edits == {"html": 1, "boilerplate": 1, "white_space": 1, "entities": 1}


@pytest.mark.parametrize(
    ("question", "answers", "reason_wanted"),
    [
        ("Is Ada Low the mayor of Arden?", ["Ada Low"], "answer_in_question"),
        ("Is it Ada Low or Bob Ray?", ["Ada Low"], None),
        ("Who is the mayor, Ada?", ["Ada Low"], None),
        ("Is the mayor Ada Low?", ["Ada Low", "Mayor Low"], None),
    ],
)
def test_a_question_that_gives_its_answer_away_is_dropped(
    question: str, answers: list[str], reason_wanted: str | None
) -> None:
    row = make_row(question, "The mayor is Ada Low. Mayor Low is old.", answers)
    _, dropped = clean([row], SETTINGS)
    assert [one.drop_reason for one in dropped] == ([reason_wanted] if reason_wanted else [])
    assert len(clean([row], CleanSettings(answer_in_question="keep"))[0]) == 1


def test_an_answer_of_marks_alone_is_none() -> None:
    assert reason(make_row("What is it?", "It is … here.", ["…"]))[0] == "empty_answer"


def test_short_questions_are_dropped_where_the_recipe_says_so() -> None:
    limits = CleanSettings(min_question_words=3)
    assert reason(make_row("Who left?", "Ada left."), limits)[0] == "question_too_short"
    assert clean([make_row("Who left Rome?", "Ada left.")], limits)[1] == []


def test_other_languages_are_dropped_where_the_recipe_names_some() -> None:
    german = "Die Leitung der Stiftung hat am Montag entschieden, dass der Garten geschlossen wird."
    english = "The trustees of the garden decided on Monday that it will be closed in winter."
    rows = [make_row("Wann wurde entschieden?", german), make_row("When?", english)]
    kept, dropped = clean(rows, CleanSettings(languages=["en"]))
    assert [row.context for row in kept] == [english]
    assert [one.drop_reason for one in dropped] == ["other_language"]
    assert dropped[0].detail.startswith("de")
    assert len(clean(rows, SETTINGS)[0]) == 2


@pytest.mark.parametrize(
    ("question", "context", "corrected"),
    [
        ("Where was the casttle bulit?", "It is old.", "Where was the castle built?"),
        ("Who kept the casttle?", "The casttle is old.", "Who kept the casttle?"),
        ("Who met Hugoo there?", "It is old.", "Who met Hugoo there?"),
        ("What dosn't it do?", "It is old.", "What dosn't it do?"),
    ],
)
def test_questions_are_spelt_right_but_for_names_and_what_the_context_knows(
    question: str, context: str, corrected: str
) -> None:
    kept, _ = clean([make_row(question, context)], CleanSettings(spelling=True))
    assert kept[0].question == corrected
    assert cleaned(make_row(question, context)).question == question


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        dirty | st.sampled_from(["Skip to content", "Privacy policy", "© Ada 2020"]), max_size=6
    ),
    st.integers(0, 400),
    st.integers(1, 40),
    st.integers(1, 4),
)
def test_offsets_stay_right_through_any_number_of_cleanings(
    lines: list[str], start: int, length: int, times: int
) -> None:
    context = "\n".join(lines)
    start = min(start, len(context))
    answer = context[start : start + length]
    rows = [make_row("What was it all about?", context, [answer], answer_starts=[start])]
    rows[0].evidence = [(start, start + len(answer))]
    for n in range(times):
        rows, _ = clean(rows, CleanSettings(boilerplate=bool(n % 2), spelling=n > 1))
        for row in rows:
            for text, place in zip(row.answers, row.answer_starts, strict=True):
                assert row.context[place : place + len(text)] == text
            for a, b in row.evidence:
                assert 0 <= a <= b <= len(row.context)
