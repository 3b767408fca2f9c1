"""The page at the server's own address, in a real browser, by mouse and by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Served, serving

from abstain.queue import Queue

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CONTEXT = "The gate of Arden is painted red. It was built in 1500 by the masons of Corby."


@pytest.fixture(scope="module")
def server(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    policy = "name: to people\nrules: [{action: escalate, name: people answer}]\n"
    with serving(tiny_run, tmp_path_factory.mktemp("service"), policy) as running:
        yield running


@pytest.fixture
def page(server: Served) -> Iterator[Any]:
    """A tab, which may speak to the server alone."""
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        tab = browser.new_page(viewport={"width": 1200, "height": 1500})
        asked: list[str] = []
        faults: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        # That an answer was an error is the browser's remark; the page has to tell it.
        own = lambda m: m.type == "error" and "Failed to load resource" not in m.text  # noqa: E731
        tab.on("console", lambda m: faults.append(m.text) if own(m) else None)
        tab.goto(server.address)
        yield tab
        assert all(url.startswith((server.address, "data:")) for url in asked), asked
        assert not faults, faults
        browser.close()


def test_a_question_is_asked_and_its_way_is_shown(server: Served, page: Any) -> None:
    page.fill("#context", CONTEXT)
    page.fill("#question", "What colour is the gate?")
    page.click("#go")
    page.wait_for_selector("#decided:not([hidden])")
    assert "passed your question on" in page.inner_text("#said")
    assert page.inner_text("#action") == "escalate"
    assert "confidence" in page.get_attribute("#scale", "aria-label")
    assert "threshold" in page.get_attribute("#scale", "aria-label")
    names = page.locator("#signals tr td:first-child").all_inner_texts()
    assert "p abstain" in names and "sufficiency head" in names
    way = page.locator("#route li").all_inner_texts()
    assert way[0].startswith("the model") and "people answer" in way[-1]
    page.wait_for_selector("#counts:has-text('1 waiting')")
    told = page.locator("#policy li").all_inner_texts()
    assert any("put it in the queue for a person" in line for line in told)
    page.screenshot(path=str(server.state / "page.png"), full_page=True)


def test_the_keyboard_suffices_to_ask_and_to_answer_the_queue(server: Served, page: Any) -> None:
    page.wait_for_selector("#question:focus")
    page.keyboard.type("Who built the gate, asked by keys?")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#decided:not([hidden])")
    queue = Queue(server.state / "queue.sqlite")
    for _ in range(20):  # the oldest first: what other tests have asked is answered too
        page.focus("#claim")
        page.keyboard.press("Enter")
        page.wait_for_selector("#claimed:not([hidden])")
        question = page.inner_text("#asked")
        assert page.evaluate("document.activeElement.id") == "asked"
        page.keyboard.press("Tab")  # the passage, to scroll it
        page.keyboard.press("Tab")  # the choice
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "answer"
        page.keyboard.type("24 hours")
        page.keyboard.press("Enter")
        page.wait_for_selector("#thanks:has-text('Thank')")
        if question == "Who built the gate, asked by keys?":
            break
    items = [item for item in queue.items("answered") if "asked by keys" in item.question]
    assert len(items) == 1 and items[0].reply is not None
    assert items[0].reply.answers == ("24 hours",)


def test_a_context_is_picked_or_comes_from_a_file(page: Any, tmp_path: Path) -> None:
    page.select_option("#pick", "a warranty")
    assert "500 charges" in page.input_value("#context")
    (tmp_path / "own.txt").write_text("Gärten öffnen um neun.", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "own.txt")
    page.wait_for_timeout(200)
    assert page.input_value("#context") == "Gärten öffnen um neun."


def test_what_goes_wrong_is_told_on_the_page(server: Served, page: Any) -> None:
    page.fill("#context", "word " * 9000)
    page.click("#go")
    page.wait_for_selector("#error:not([hidden])")
    assert "tokens" in page.inner_text("#error")


def test_every_field_has_a_name_that_is_read_out(page: Any) -> None:
    nameless = page.evaluate(
        """[...document.querySelectorAll('input, textarea, select, button')]
           .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()
                   && !e.getAttribute('aria-label')).map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert page.get_attribute("html", "lang") == "en"
