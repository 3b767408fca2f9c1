"""The report in a real browser: it renders by itself, with its pictures, and asks for nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import run_command

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def report(tiny_run: Path, data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    done = run_command("abstain", "evaluate", tiny_run, "--data", data_set, "--out", out)
    assert done.returncode == 0, done.stderr
    return out / "report.html"


def test_it_is_one_file_that_fetches_nothing(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?([^"')\s>]+)""", text)
    assert all(source.startswith("#") for source in sources), sources
    assert "@import" not in text and "<script" not in text


def test_texts_from_the_data_are_escaped(tiny_run: Path, tmp_path: Path) -> None:
    from curate.record import Row, to_table, write_table

    evil = "<script>alert(1)</script>"
    rows = [
        Row(evil, f"{evil} context {i}", answers=[evil], sufficient=bool(i % 2), document_id=str(i))
        for i in range(6)
    ]
    write_table(to_table(row.stamped(i) for i, row in enumerate(rows)), tmp_path / "rows.parquet")
    done = run_command(
        "abstain", "evaluate", tiny_run, "--data", tmp_path / "rows.parquet", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_a_browser_renders_the_pictures_and_reports_no_error(report: Path, tmp_path: Path) -> None:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [*command, "--enable-logging=stderr", "--dump-dom", report.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<svg") == 3
    assert "Risk against coverage" in done.stdout
    picture = tmp_path / "report.png"
    subprocess.run(
        [*command, "--window-size=1200,2400", f"--screenshot={picture}", report.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert picture.stat().st_size > 50_000  # a blank page of this size has a few thousand bytes
