"""The tables of fine-tuning run through on a random model: what takes hours must not crash."""

import json
from pathlib import Path

import pytest
from test_benchmarks import run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the tables share."""
    return tmp_path_factory.mktemp("tables")


def table(name: str, out: Path, data: Path, model: Path, *more: object) -> str:
    page = out / f"{name}.md"
    small = ("--data", data, "--model", model, "--rows", 12)
    run(name, *small, "--out", out, "--docs", page, *more)
    return page.read_text(encoding="utf-8")


def test_methods_are_trained_once_and_judged(small_set: Path, tiny_model: Path, out: Path) -> None:
    more = ("--epochs", 0.5, "--only", "lora", "adapterfusion")
    text = table("methods", out, small_set, tiny_model, *more)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| untrained", "| lora", "| adapterfusion",
    ]  # fmt: skip
    assert {path.name for path in out.glob("bottleneck-*")} == {
        "bottleneck-half-1", "bottleneck-half-2",
    }  # fmt: skip
    before = (out / "lora/training.json").stat().st_mtime_ns
    assert table("methods", out, small_set, tiny_model, *more) == text
    assert (out / "lora/training.json").stat().st_mtime_ns == before


def test_countermeasures_and_options_stand_beside_what_was_trained(
    small_set: Path, tiny_model: Path, out: Path
) -> None:
    text = table(
        "forgetting", out, small_set, tiny_model, "--epochs", 0.5, "--only", "lora, rehearsal"
    )
    assert "- lora, rehearsal: `train run --replay 0.2`" in text and "| lora, rehearsal |" in text
    only = ("--epochs", 0.5, "--only", "lora, then preferences")
    text = table("curriculum", out, small_set, tiny_model, *only)
    assert "| lora, then preferences |" in text and "`train prefer` of the first" in text
    assert json.loads((out / "lora-preferred/training.json").read_text())["preferences"]["pairs"]


def test_a_search_writes_its_page(small_set: Path, tiny_model: Path, out: Path) -> None:
    text = table("search", out, small_set, tiny_model, "--trials", 2)
    assert "12 rows" in text and "defaults: f1" in text


def test_estimates_stand_beside_measurements(tiny_model: Path, tmp_path: Path) -> None:
    page, stored = tmp_path / "estimate.md", tmp_path / "estimate.json"
    more = ("--model", tiny_model, "--first", 1, "--out", stored, "--docs", page)
    printed = run("estimate", *more)
    assert "Memory: worst error" in printed and "| lora | 256 |" in page.read_text("utf-8")
    measured = json.loads(stored.read_text())["measured"]
    run("estimate", *more)  # what was measured is not measured again
    assert json.loads(stored.read_text())["measured"] == measured


def test_trl_and_ours_are_compared_on_the_same_rows(tiny_model: Path, tmp_path: Path) -> None:
    page, stored = tmp_path / "trl.md", tmp_path / "trl.json"
    run("against_trl", "--model", tiny_model, "--contexts", 1, "--out", stored, "--docs", page)
    found = json.loads(stored.read_text())
    for kind in ("several questions a context", "one question"):
        sides = found[kind]["sides"]
        assert sides["TRL"]["steps"] >= 1 and sides["train run"]["steps"] >= 1
        # Random models that one or two steps have hardly moved: as good as each other.
        assert abs(found[kind]["losses"]["difference"]["value"]) < 1
    assert page.read_text("utf-8").count("| train run |") == 2
