"""The labelling page in a real browser: a person marks the answer, chooses, submits."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import make_row
from label_studio import Studio, saved

from curate.annotate import annotations

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
CONTEXT = (
    "Arden 🔔 lies on the Wye.\nIts north gate, built in 1423 by Zoë Pell, was pulled down in 1791."
    "\r\n\r\nA second  gate stood by the mill &amp; the <b>ford</b>; the toll was two pence."
)
# Where on the screen some words of the passage are.
PLACE = """words => {
  for (const root of document.querySelectorAll('[class*=richtext__container]')) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); ) {
      const at = node.data.indexOf(words);
      if (at < 0) continue;
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, at + words.length);
      const box = range.getBoundingClientRect();
      return [box.left, box.right, box.top + box.height / 2];
    }
  }
}"""


@pytest.fixture(scope="module")
def page(label_studio: Studio) -> Iterator[Any]:
    """A browser's page with the administrator logged in."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{label_studio.address}/user/login/")
        page.fill("input[name=email]", label_studio.administrator.email)
        page.fill("input[name=password]", label_studio.administrator.password)
        page.click("button[type=submit]")
        page.wait_for_url(re.compile("projects|^[^?]*/$"))
        yield page
        browser.close()


def mark(page: Any, words: str) -> None:
    """Draw the mouse over some words of the passage, with the label chosen by its key."""
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    left, right, height = page.evaluate(PLACE, words)
    page.mouse.move(left + 1, height)
    page.mouse.down()
    page.mouse.move(right - 1, height, steps=8)
    page.mouse.up()
    page.get_by_text(words, exact=True).last.wait_for()  # in the list of regions


def test_what_is_marked_and_chosen_on_the_page_is_found_by_pull(
    label_studio: Studio, page: Any, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    rows = [
        make_row("Who built the north gate of Arden?", CONTEXT, source_id="who"),
        make_row("Who owns the mill?", CONTEXT, source_id="mill"),
        make_row("What was the toll?", CONTEXT, source_id="toll"),
    ]
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    label_studio.json("annotate", "push", path, "--project", "page-in-browser")
    number = label_studio.owner.project("page-in-browser")["id"]

    def press(key: str, chosen: str) -> None:
        page.keyboard.press(key)
        expect(page.locator(f"input[name='{chosen}']")).to_be_checked()

    def who_built() -> None:
        mark(page, "Zoë Pell")
        mark(page, "ford")
        page.keyboard.press("Escape")
        press("1", "yes")

    def who_owns() -> None:  # by keyboard alone
        press("2", "no")
        press("3", "it is about this, but does not say it")

    def what_toll() -> None:  # an answer without a mouse: typed, and found in the passage
        press("1", "yes")
        page.get_by_placeholder("only where the passage").focus()
        page.keyboard.type("two pence")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")

    answers = dict(
        zip([row.question for row in rows], (who_built, who_owns, what_toll), strict=True)
    )
    page.goto(f"{label_studio.address}/projects/{number}/data?labeling=1")
    page.keyboard.press("Escape")  # a page just loaded takes its first key for something else
    while answers:
        passage = page.locator("[class*=richtext__line]", has_text="the toll was two pence")
        passage.wait_for(timeout=60_000)
        asked = page.get_by_text(re.compile("^(" + "|".join(map(re.escape, answers)) + ")$")).last
        answers.pop(asked.inner_text())()
        with page.expect_response(re.compile("/annotations/?")) as answer:
            page.keyboard.press("Control+Enter")
        assert answer.value.ok

    pulled = label_studio.json("annotate", "pull", "--project", "page-in-browser", "--out", out)
    assert pulled["annotations"] == {"counts": 3} and pulled["invalid"] == {}
    said = {one.row.id: one.said for one in annotations.read(out)}
    who, mill, toll = (said[row.id] for row in rows)
    assert who.sufficient and [text for text, _ in who.answers] == ["Zoë Pell", "ford"]
    assert all(CONTEXT[start:].startswith(text) for text, start in who.answers)
    assert mill.sufficient is False and mill.reason == "evidence_missing"
    assert toll.answers == (("two pence", CONTEXT.index("two pence")),)
    lead = [one.lead_time for one in annotations.read(out)]
    assert all(seconds is not None and 0 < seconds < 120 for seconds in lead)


@pytest.mark.parametrize("prelabel", [True, False])
def test_annotators_begin_with_predictions_only_where_that_is_asked_for(
    label_studio: Studio, page: Any, tmp_path: Path, prelabel: bool
) -> None:
    from playwright.sync_api import expect

    row = make_row("Who built it?", CONTEXT, ["Zoë Pell"], source_id=f"{prelabel}")
    path, name = saved([row], tmp_path / "rows.parquet"), f"prelabel-{prelabel}"
    push = ("annotate", "push", path, "--project", name)
    label_studio.json(*push, *(["--prelabel"] if prelabel else []))
    number = label_studio.owner.project(name)["id"]
    page.goto(f"{label_studio.address}/projects/{number}/data?labeling=1")
    page.locator("[class*=richtext__line]", has_text="the toll was").wait_for(timeout=60_000)
    choice = page.locator("input[name='yes']")
    expect(choice).to_be_checked(checked=prelabel)
    expect(page.get_by_text("Zoë Pell", exact=True)).to_have_count(
        2 if prelabel else 0
    )  # marked, and listed
