"""The benchmarks run through on something small: what takes an hour must not crash at its end."""

import json
import subprocess
import sys
from pathlib import Path

from helpers import ENVIRONMENT

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
    small = ("--samples", 1, 3, "--out", out)
    printed = run("mc_dropout", *arguments, *small)
    assert "top-2 T=3" in printed and "AUROC, correct" in printed
    found = json.loads(out.read_text())
    by_name = {entry["setting"]: entry for entry in found["settings"]}
    assert by_name["greedy"]["ratio"] == 1.0
    assert by_name["full T=3"]["signals"]["mc_mean_p_abstain"]["rank_correlation"] == 1.0
    assert by_name["top-k T=1"]["signals"]["mc_std_p_abstain"]["rank_correlation"] is None
    kept = out.with_suffix(".partial.json")
    before = json.loads(kept.read_text())
    kept.write_text(json.dumps({**before, "contexts": before["contexts"][:1]}))
    run("mc_dropout", *arguments, *small)
    after = json.loads(kept.read_text())
    assert after["contexts"][0] == before["contexts"][0]
    assert len(after["contexts"]) == len(before["contexts"])


def test_the_guarantee_page_is_written(tmp_path: Path) -> None:
    page, out = tmp_path / "guarantee.md", tmp_path / "guarantee.json"
    printed = run("guarantee", "--draws", 3, "--docs", page, "--out", out)
    text = page.read_text(encoding="utf-8")
    assert text.strip() == printed.strip()
    assert text.count("| fixed-sequence | 10% |") == 3 and "## All pooled" in text
