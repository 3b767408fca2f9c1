"""Does the guarantee hold? Each procedure on thousands of calibration sets with known risk.

    python -m benchmarks.guarantee [--draws 2000] [--predictions FILE.parquet] [--docs FILE.md]

Four worlds: scores with a known chance of being right; the same with ten questions a context that
resemble each other, counted one a context and, wrongly, all; and resampled predictions of a real
run where there are any.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import binom, norm
from tqdm import tqdm

from abstain.signals import Array
from abstain.threshold import PROCEDURES, Goal, Guarantee, Units, candidates, certify
from benchmarks.markdown import table
from benchmarks.paths import ROOT
from curate.files import write_json, write_text

DELTA = 0.05
RISKS = (0.01, 0.05, 0.10, 0.20)
SIZES = (100, 300, 1000)
VALIDATION = 300
QUESTIONS = 10  # of a context, where questions resemble each other
CORRELATION = 0.2
WORLDS = {
    "independent": "Questions of as many contexts, P(right) a known function of the confidence.",
    "one a context": "Ten questions a context, whose rightness correlates by about 0.2; one of "
    "each context is drawn, as `abstain calibrate` does.",
    "all pooled": "The same, all questions counted: what `--pooled` assumes away.",
    "real, resampled": "Predictions of a real run on its test split, drawn with replacement.",
}


@dataclass(frozen=True)
class World:
    """A population to draw from, and the true risk of every threshold in it."""

    draw: Callable[[Any, int], Units]
    confidence: Array  # of a large sample, ascending
    risk: Array  # true risk of answering at and above each of them
    share: Array  # of all questions answered there

    def truth(self, threshold: float) -> tuple[float, float]:
        """True selective risk and coverage at a threshold."""
        at = min(int(np.searchsorted(self.confidence, threshold)), len(self.risk) - 1)
        return float(self.risk[at]), float(self.share[at])

    def oracle(self, risk: float) -> float:
        """The largest coverage at which the true risk keeps to the target."""
        kept = self.share[self.risk <= risk]
        return float(kept.max()) if len(kept) else 0.0


def _world(
    draw: Callable[[Any, int], Units], confidence: Array, answered: Array, chance: Array
) -> World:
    order = np.argsort(confidence[answered])
    ascending, wrong = confidence[answered][order], 1 - chance[answered][order]
    count = np.arange(len(ascending), 0, -1)
    risk = wrong[::-1].cumsum()[::-1] / count
    # Tied confidences go together: each takes the risk of the first of its tie.
    first = np.searchsorted(ascending, ascending)
    return World(draw, ascending, risk[first], (count / len(confidence))[first])


def synthetic(group: int) -> World:
    """P(right) a known function of the confidence; ``group`` questions a context share their luck.

    The chances of a context's questions are moved together by a normal effect, whose size gives
    the rightness of two of them about `CORRELATION`; on average the chance stays the same.
    """
    loading = np.sqrt(CORRELATION * 1.9) if group > 1 else 0.0

    def chance(confidence: Array) -> Array:
        return np.asarray(expit(8 * confidence - 2))

    def draw(random: Any, rows: int) -> Units:
        confidence = random.random(rows)
        contexts = np.arange(rows) // group
        effect = random.standard_normal(rows)[contexts]
        own = random.standard_normal(rows)
        luck = loading * effect + np.sqrt(1 - loading**2) * own
        right = luck <= norm.ppf(chance(confidence))
        return Units(confidence, random.random(rows) < 0.9, right)

    sample = np.random.default_rng(0).random(400_000)
    answered = np.random.default_rng(1).random(400_000) < 0.9
    return _world(draw, sample, answered, chance(sample))


def one_a_context(world: World) -> World:
    """The same population with one question drawn from each context."""

    def draw(random: Any, rows: int) -> Units:
        whole = world.draw(random, rows * QUESTIONS)
        pick = np.arange(rows) * QUESTIONS + random.integers(0, QUESTIONS, rows)
        return Units(whole.confidence[pick], whole.answered[pick], whole.right[pick])

    return World(draw, world.confidence, world.risk, world.share)


def real(path: Path) -> World:
    """Predictions of `abstain evaluate`, resampled: their own rates are the truth."""
    import pyarrow.parquet as pq

    columns = pq.read_table(path, columns=["confidence", "abstained", "right"])
    confidence = columns["confidence"].to_numpy()
    answered = ~columns["abstained"].to_numpy(zero_copy_only=False)
    right = columns["right"].to_numpy(zero_copy_only=False)

    def draw(random: Any, rows: int) -> Units:
        pick = random.integers(0, len(confidence), rows)
        return Units(confidence[pick], answered[pick], right[pick])

    return _world(draw, confidence, answered, right.astype(float))


def measure(world: World, goal: Goal, units: int, draws: int) -> dict[str, float]:
    """How often a procedure certifies, how often that is false, and what it answers."""
    random = np.random.default_rng(17)
    certified = false = 0
    coverage, joint = 0.0, 0.0
    for _ in range(draws):
        thresholds = candidates(world.draw(random, VALIDATION), units, goal)
        outcome = certify(thresholds, world.draw(random, units), goal)
        if isinstance(outcome, Guarantee):
            risk, share = world.truth(outcome.threshold)
            certified += 1
            false += risk > goal.risk
            coverage += share
            joint += risk * share
    return {
        "false": false / draws,
        "certified": certified / draws,
        "coverage": coverage / draws,
        "oracle": world.oracle(goal.risk),
        "answered_and_wrong": joint / draws,
    }


def main() -> None:
    """Parse arguments, simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--predictions", type=Path, help="predictions.parquet of a run")
    parser.add_argument("--docs", type=Path, help="write the page of the documentation here")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmarks" / "guarantee.json")
    arguments = parser.parse_args()
    grouped = synthetic(QUESTIONS)
    worlds: dict[str, World] = {
        "independent": synthetic(1),
        "one a context": one_a_context(grouped),
        "all pooled": grouped,
    }
    if arguments.predictions is not None:
        worlds["real, resampled"] = real(arguments.predictions)
    found = [
        {"world": name, "procedure": procedure, "risk": risk, "units": units}
        for name in worlds
        for procedure in PROCEDURES
        for risk in RISKS
        for units in SIZES
    ]
    for entry in tqdm(found, unit="setting"):
        goal = Goal(entry["risk"], DELTA, entry["procedure"])
        entry |= measure(worlds[entry["world"]], goal, entry["units"], arguments.draws)
    write_json(arguments.out, {"draws": arguments.draws, "delta": DELTA, "settings": found})
    text = document(found, arguments.draws)
    print(text)
    if arguments.docs is not None:
        write_text(arguments.docs, text)


def document(found: Sequence[dict[str, Any]], draws: int) -> str:
    """The page of the documentation: what was simulated, and a table for each world."""
    most = binom.ppf(0.975, draws, DELTA) / draws
    sections = []
    for world in dict.fromkeys(entry["world"] for entry in found):
        entries = [entry for entry in found if entry["world"] == world]
        sections.append(f"## {world.capitalize()}\n\n{WORLDS[world]}\n\n{_table(entries)}")
    return (
        "# Does the guarantee hold?\n\n"
        "Made by `python -m benchmarks.guarantee --predictions EVALUATION/predictions.parquet "
        "--docs docs/guarantee.md`; do not edit.\n\n"
        f"{draws:,} draws a cell, δ = {DELTA:.0%}. A validation set of {VALIDATION} rows fixes the "
        "candidates, n calibration units certify, and the true risk of the resulting threshold is "
        "looked up. Each cell: the share of draws whose true selective risk exceeds α, which must "
        f"not exceed δ (up to {most:.1%} is within the error of so many draws), and in brackets "
        "the mean coverage as a share of what an oracle that knows every risk would answer, and "
        "the share of draws in which anything was certified; where that is 0 %, the first number "
        "shows nothing. `crc` "
        "promises something else, an average: its first number is the mean share of questions "
        "answered and wrong, to be held against α, and its second the mean coverage itself.\n\n"
        + "\n\n".join(sections)
        + "\n"
    )


def _table(entries: Sequence[dict[str, Any]]) -> str:
    sizes = sorted({entry["units"] for entry in entries})
    keyed = {(e["procedure"], e["risk"], e["units"]): e for e in entries}
    lines = []
    for procedure, risk in dict.fromkeys(key[:2] for key in keyed):
        cells = [_cell(keyed[procedure, risk, size]) for size in sizes]
        lines.append((procedure, f"{risk:.0%}", *cells))
    return table(("procedure", "α", *(f"n = {size:,}" for size in sizes)), lines)


def _cell(entry: dict[str, Any]) -> str:
    if entry["procedure"] == "crc":
        return f"{entry['answered_and_wrong']:.1%} ({entry['coverage']:.0%} of all)"
    first = entry["false"]
    if not entry["oracle"]:
        return f"{first:.1%} (nothing to answer)"
    share = entry["coverage"] / entry["oracle"]
    return f"{first:.1%} ({share:.0%}, certified {entry['certified']:.0%})"


if __name__ == "__main__":
    main()
