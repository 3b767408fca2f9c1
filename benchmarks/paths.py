"""Where the benchmarks find their data and leave their results."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SQUAD = ROOT.parent / "shared" / "data" / "squad-v2-visible.json"  # real data; not everywhere
DEMO = ROOT / "data" / "demo" / "questions.json"
