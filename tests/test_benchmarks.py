"""The benchmarks run through on something small: what takes an hour must not crash at its end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ENVIRONMENT, run_command

ROOT = Path(__file__).resolve().parents[1]


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mc_dropout_goes_on_where_it_was_and_compares_scopes(
    tiny_run: Path, data_set: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mc.json"
    arguments = (tiny_run, "--data", data_set, "--rows", 6, "--top-k", 2)
    page = tmp_path / "mc.md"
    small = ("--samples", 1, 3, "--out", out, "--docs", page)
    printed = run("mc_dropout", *arguments, *small)
    assert "| top-2 T=3 |" in printed and "## AUROC: is the answer right?" in printed
    assert page.read_text(encoding="utf-8").strip() == printed.strip()
    found = json.loads(out.read_text())
    by_name = {entry["setting"]: entry for entry in found["settings"]}
    assert by_name["greedy"]["ratio"] == 1.0
    assert by_name["full T=3"]["signals"]["mc_mean_p_abstain"]["rank_correlation"] == 1.0
    assert by_name["top-k T=1"]["signals"]["mc_std_p_abstain"]["rank_correlation"] is None
    head = by_name["suffix T=3"]["signals"]["mc_mean_head"]
    plain = by_name["greedy"]["signals"]["sufficiency_head"]
    difference = head["sufficient"]["value"] - plain["sufficient"]["value"]
    assert head["sufficient_less_plain"]["value"] == pytest.approx(difference)
    kept = out.with_suffix(".partial.json")
    before = json.loads(kept.read_text())
    kept.write_text(json.dumps({**before, "contexts": before["contexts"][:1]}))
    run("mc_dropout", *arguments, *small)
    after = json.loads(kept.read_text())
    assert after["contexts"][0] == before["contexts"][0]
    assert len(after["contexts"]) == len(before["contexts"])
    run("mc_dropout", *arguments, *small)  # what has come to its end is measured anew
    anew = json.loads(kept.read_text())
    assert anew["contexts"][0]["seconds"] != before["contexts"][0]["seconds"]


def test_the_guarantee_page_is_written(tmp_path: Path) -> None:
    page, out = tmp_path / "guarantee.md", tmp_path / "guarantee.json"
    printed = run("guarantee", "--draws", 3, "--docs", page, "--out", out)
    text = page.read_text(encoding="utf-8")
    assert text.strip() == printed.strip()
    assert text.count("| fixed-sequence | 10% |") == 3 and "## All pooled" in text


def test_the_page_about_signals_shows_every_one_of_them(
    tiny_run: Path, data_set: Path, tmp_path: Path
) -> None:
    done = run_command("abstain", "evaluate", tiny_run, "--data", data_set, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "signals.md"
    assert run("signals", tmp_path, "--docs", page).strip() == page.read_text("utf-8").strip()
    lines = [line.split(" | ") for line in page.read_text("utf-8").splitlines() if "[" in line]
    found = json.loads((tmp_path / "metrics.json").read_text())["by_signal"]
    by_name = {line["name"]: line["auroc_sufficient"]["value"] for line in found}
    shown = {line[0].strip("| "): float(line[1].split()[0]) for line in lines if len(line) > 1}
    assert shown.keys() == by_name.keys()
    assert shown == {name: float(f"{value:.3f}") for name, value in by_name.items()}


def test_streaming_prints_memory_at_each_size(tmp_path: Path) -> None:
    out = tmp_path / "streaming.json"
    printed = run("streaming", "--megabytes", 1, 2, "--out", out)
    assert "over that of the smallest" in printed
    assert [line["megabytes"] for line in json.loads(out.read_text())] == [1, 2]
