"""The demonstration: its questions and its site agree, as the program reads them."""

from collections import Counter, defaultdict

import pytest
from curate_helpers import ROOT

from curate.files import read_json
from curate.record import REASONS, Passage, Row
from curate.sources import site, squad

DEMO = ROOT / "data" / "demo"
Site = tuple[list[Row], list[Passage]]


@pytest.fixture(scope="module")
def questions() -> list[Row]:
    return list(squad.read(str(DEMO / "questions.json"), "demo"))


@pytest.fixture(scope="module")
def pages() -> Site:
    return site.read(str(DEMO / "site"), "demo")


def test_every_context_is_a_passage_of_its_own_page(questions: list[Row], pages: Site) -> None:
    passages = {(passage.document_id, passage.context) for passage in pages[1]}
    assert {(row.document_id, row.context) for row in questions} <= passages


def test_every_section_of_a_content_page_has_questions(questions: list[Row], pages: Site) -> None:
    asked = {row.context for row in questions}
    content = [p.context for p in pages[1] if "/faq-" not in p.document_id]
    assert len(content) == 100
    assert set(content) == asked


def test_offsets_of_answers_and_plausible_answers_are_right(questions: list[Row]) -> None:
    for row in questions:
        for answer, start in zip(row.answers, row.answer_starts, strict=True):
            assert row.context[start : start + len(answer)] == answer
            assert 1 <= len(answer.split()) <= 8
        assert bool(row.answers) is row.sufficient
    for article in read_json(DEMO / "questions.json")["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                for one in question.get("plausible_answers", []):
                    end = one["answer_start"] + len(one["text"])
                    assert paragraph["context"][one["answer_start"] : end] == one["text"]


def test_reasons_are_ours_and_every_unanswerable_question_has_one(questions: list[Row]) -> None:
    found = Counter(row.reason for row in questions if not row.sufficient)
    assert set(found) <= set(REASONS) - {"unlabelled"}
    assert len(found) >= 4
    assert 0.4 <= found.total() / len(questions) <= 0.6


def test_questions_and_ids_do_not_repeat_within_a_context(
    questions: list[Row], pages: Site
) -> None:
    assert len({row.source_id for row in questions}) == len(questions) == 362
    by_context: dict[str, list[str]] = defaultdict(list)
    for row in questions:
        by_context[row.context].append(row.question.casefold())
    assert all(len(asked) == len(set(asked)) for asked in by_context.values())
    assert not {row.question for row in questions} & {row.question for row in pages[0]}


def test_faq_pairs_are_read_from_both_kinds_of_pages(pages: Site) -> None:
    found = Counter(row.document_id.removeprefix("demo/") for row in pages[0])
    assert set(found) == {
        "faq-getting-started.html",
        "faq-fees-and-help.html",
        "faq-riding.html",
        "faq-community.html",
    }
    assert found.total() == 30
    for name in found:
        source = (DEMO / "site" / name).read_text(encoding="utf-8")
        by_schema = name in ("faq-getting-started.html", "faq-fees-and-help.html")
        assert ("FAQPage" in source, "<details>" in source) == (by_schema, not by_schema)
    for row in pages[0]:
        (answer,), (start,) = row.answers, row.answer_starts
        assert row.context[start : start + len(answer)] == answer


def test_schema_pairs_are_also_visible_text_of_their_page(pages: Site) -> None:
    for row in pages[0]:
        text = (DEMO / "site" / row.url).read_text(encoding="utf-8").split("</script>")[-1]
        assert row.question in text
        assert row.answers[0] in text
