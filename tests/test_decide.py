"""`train plan --decide`: the learning curve's law, the verdicts, and the whole on a small model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import run_command
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from abstain.answerer import load_answerer
from abstain.metrics import Judged
from curate.errors import UserError
from curate.record import Row, read_fold, to_table, write_table
from train import decide as deciding
from train.decide import Asked, DataFacts, Measured, measure
from train.judge import judge
from train.learning_curve import Curve, draw_on, fit
from train.settings import TrainSettings
from train.verdict import Verdict, weigh

SIZES = [100, 250, 500, 1000]


def law(n: Any, a: float, b: float, c: float) -> Any:
    return a - b * n**-c


def test_the_law_that_made_the_scores_is_found() -> None:
    true = (0.8, 3.0, 0.5)
    found = fit(SIZES, np.array([law(np.array(SIZES, float), *true)]))
    assert found.at(4000)[0] == pytest.approx(law(4000, *true), abs=0.003)
    assert found.rows_for(0.75)[0] == pytest.approx((3.0 / 0.05) ** 2, rel=0.1)
    assert found.rows_for(0.9)[0] == np.inf


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_law_never_falls_nor_exceeds_one(scores: list[float]) -> None:
    found = fit(SIZES, np.array([scores]))
    values = [float(found.at(n)[0]) for n in (100, 1000, 10_000, 1e6)]
    assert values == sorted(values) and values[-1] <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_it_fits_as_well_as_scipy_does(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n = np.array(SIZES, float)
    scores = law(n, 0.8, 3.0, 0.5) + draw.normal(0, 0.01, 4)
    found = fit(SIZES, scores[None])
    ours = float(((law(n, found.a[0], found.b[0], found.c[0]) - scores) ** 2).sum())
    best, _ = curve_fit(
        law, n, scores, p0=(0.7, 1, 0.5), bounds=([-np.inf, 0, 0.05], [1, np.inf, 2]), maxfev=20_000
    )
    theirs = float(((law(n, *best) - scores) ** 2).sum())
    assert ours <= theirs * 1.02 + 1e-7


def test_what_has_no_score_has_no_law() -> None:
    scores = np.array([[0.3, 0.4, np.nan, 0.6], [0.3, 0.4, 0.5, 0.6]])
    found = fit(SIZES, scores)
    assert np.isnan(found.at(2000)[0]) and found.at(2000)[1] > 0.6
    with pytest.raises(ValueError, match="3 different sizes"):
        fit([100, 100, 200], np.array([[0.3, 0.4, 0.5]]))


def judged(right: Any) -> Judged:
    ones = np.ones(len(right), dtype=bool)
    score = np.asarray(right, dtype=float)
    return Judged(score, score, ones, ones, ones & (score > 0), score, score)


@pytest.mark.parametrize("seed", range(2))
def test_a_curve_is_drawn_on_with_intervals(seed: int) -> None:
    draw = np.random.default_rng(seed)
    level = draw.random(400)  # a row is right from some number of training rows on
    evaluations = [judged(level < law(n, 0.8, 3.0, 0.5)) for n in SIZES]
    groups = [str(i // 2) for i in range(400)]
    found = draw_on(SIZES, evaluations, groups, "f1", 0.75)
    assert found.sizes == SIZES and list(found.further) == [2000, 4000]
    for score in [*found.scores, found.gain, *found.further.values()]:
        assert score["low"] <= score["value"] <= score["high"]  # type: ignore[operator]
    end = found.further[4000]
    width = end["high"] - end["low"]  # type: ignore[operator]
    assert abs(end["value"] - law(4000, 0.8, 3.0, 0.5)) < width < 0.3  # type: ignore[operator]
    assert found.rows_needed is not None and found.rows_needed["low"] < 7200  # type: ignore[operator]


def test_a_curve_that_falls_promises_nothing() -> None:
    """Its law would be its mean, above what all rows reach."""
    level = np.random.default_rng(0).random(400)
    evaluations = [judged(level < share) for share in (0.8, 0.7, 0.65, 0.6)]
    found = draw_on(SIZES, evaluations, [str(i) for i in range(400)], "f1", 0.7)
    assert not found.rises and found.gain["value"] == 0
    assert found.further[2000]["value"] == found.scores[-1]["value"]
    assert found.rows_needed is not None and found.rows_needed["value"] == 1e12
    assert "does not rise" in weigh(measured(curve=found)).text()


def test_a_curve_with_a_gap_says_so_and_promises_nothing() -> None:
    undefined = [
        judged(np.ones(40, dtype=bool)),
        *[judged(np.arange(40) % n > 0) for n in (2, 3, 4)],
    ]
    found = draw_on(SIZES, undefined, [str(i) for i in range(40)], "auroc_correct", 0.7)
    assert found.rises is None and found.rows_needed is not None
    assert found.rows_needed["value"] is None
    text = weigh(measured(curve=found, metric="auroc_correct")).text()
    assert "tells nothing of more" in text and "no number of rows" not in text


def sure(value: float, spread: float = 0.02) -> Any:
    return {"value": value, "low": value - spread, "high": value + spread}


def measured(**given: Any) -> Measured:
    """A model that training helps much, and more rows a little."""
    curve = Curve(
        "f1", SIZES, [sure(0.3), sure(0.4), sure(0.5), sure(0.6)], {2000: sure(0.65)},
        gain=sure(0.05), rows_needed=sure(2500.0, 500.0), rises=True,
    )  # fmt: skip
    found = Measured(
        metric="f1", goal=0.7, data=DataFacts(1000, 200, 50, 0.5, 1.0, 0.01, 0.0, 0.1),
        untrained=[Asked("untrained, prompted", sure(0.3), 500),
                   Asked("untrained, 4 worked examples", sure(0.25), 900)],
        trained=Asked("trained on all rows", sure(0.6), 500), curve=curve, gain=sure(0.3),
        off_contract=0.4, closed_book=0.1, grounded=0.5, train_loss=0.5, validation_loss=0.6,
        forgotten=0.02, over_refusal=0.0, minutes=20, memory=3, machine=24,
    )  # fmt: skip
    return replace(found, **given)


def recommended(found: Verdict) -> list[str]:
    return [one.name for one in found.options if one.recommended]


def test_what_is_recommended_follows_from_the_numbers() -> None:
    assert recommended(weigh(measured())) == ["fine-tune", "collect more data"]
    assert recommended(weigh(measured(goal=0.5))) == ["fine-tune"]
    assert recommended(weigh(measured(goal=None))) == ["fine-tune"]
    # What prompting reaches for certain needs no training, and what it reaches by chance does.
    assert recommended(weigh(measured(goal=0.27))) == ["prompt only"]
    assert recommended(weigh(measured(goal=0.295))) == ["fine-tune"]
    # A gain that may be chance is none; where the curve still rises, more rows may tell.
    chance = {"value": 0.02, "low": -0.03, "high": 0.07}
    assert recommended(weigh(measured(gain=chance, goal=None))) == [
        "prompt only", "collect more data",
    ]  # fmt: skip
    text = weigh(measured(gain=chance, goal=None)).text()
    assert "about 7 times as many validation rows" in text  # (0.05 / 0.02)²
    level = replace(measured().curve, gain=chance, rows_needed=sure(1e12, 0))
    assert recommended(weigh(measured(gain=chance, curve=level))) == ["prompt only"]
    # No training brings what contexts lack, and no machine trains what it cannot hold.
    lacking = replace(measured().data, context_missing=0.6)
    assert "retrieval" in recommended(weigh(measured(data=lacking)))
    assert "fine-tune" not in recommended(weigh(measured(memory=30)))


def test_wrong_labels_are_counted_and_named() -> None:
    right = Row("Who built it?", "Ann built it.", answers=["Ann"], sufficient=True, id="a")
    rows = [
        right,
        replace(right, id="b", question="who  built it", answers=[], sufficient=False),
        replace(right, id="c", question="When?", answers=["1850"]),
        replace(right, id="d", question="What did Ann build?", answers=["it", "a gate"]),
    ]
    facts = deciding._facts(rows, rows)
    assert facts.unsupported == pytest.approx(1 / 3) and facts.contradicted == 0.5
    assert "mend those before" in weigh(measured(data=facts)).text()
    assert "mend those" not in weigh(measured()).text()


def test_each_verdict_says_what_would_turn_it_round() -> None:
    for found in (measured(), measured(goal=0.27), measured(memory=30)):
        verdict = weigh(found)
        text = verdict.text()
        for option in verdict.options:
            assert option.reasons and f" {option.name}" in text
            assert option.would_change or option.recommended
    assert "about 2,500 rows would reach 0.7" in weigh(measured()).text()
    slow = [replace(one, score=sure(0.4)) if "examples" in one.name else one
            for one in reversed(measured().untrained)]  # fmt: skip
    assert "1.8 times as long" in weigh(measured(untrained=slow)).text()
    assert "by heart" in weigh(measured(validation_loss=1.5)).text()
    assert "--replay" in weigh(measured(forgotten=0.2)).text()


def test_decide_measures_once(small_set: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"bfloat16": "off", "epochs": 1, "rank": 4}))
    arguments = [
        "plan", "--decide", "--data", small_set, "--out", tmp_path / "out", "--model", tiny_model,
        "--config", config, "--goal", "f1=0.9", "--json",
    ]  # fmt: skip
    done = run_command("train", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["name"] for one in found["options"]] == [
        "prompt only", "retrieval", "fine-tune", "collect more data",
    ]  # fmt: skip
    sizes = found["measured"]["curve"]["sizes"]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    runs = sorted((tmp_path / "out/curve").glob("*/run/training.json"))
    assert len(runs) == 4
    before = [run.stat().st_mtime_ns for run in runs]
    again = json.loads(run_command("train", *arguments).stdout)
    assert [run.stat().st_mtime_ns for run in runs] == before
    for one in (found, again):  # the plan is timed anew
        del one["measured"]["minutes"]
    assert [one["recommended"] for one in again["options"]] == [
        one["recommended"] for one in found["options"]
    ]
    assert again["measured"] == found["measured"]


def only(data: Path, out: Path, **folds: Any) -> Path:
    """A copy of a data set with only some rows of its splits."""
    for fold in ("train", "validation", "test"):
        rows = [row for row in read_fold(data, fold) if folds.get(fold, lambda _: True)(row)]
        out.mkdir(exist_ok=True)
        write_table(to_table(rows), out / f"{fold}.parquet")
    return out


def test_what_cannot_be_decided_is_said_before_anything_is_trained(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    chosen = TrainSettings(model=str(tiny_model), bfloat16="off", epochs=1, rank=4)
    one_kind = only(small_set, tmp_path / "one", validation=lambda row: row.sufficient)
    context = read_fold(small_set, "validation")[0].context
    one_context = only(
        small_set, tmp_path / "context", validation=lambda row: row.context == context
    )
    contexts = {row.context for row in read_fold(small_set, "train")}
    two = sorted(contexts)[:2]
    few = only(small_set, tmp_path / "few", train=lambda row: row.context in two)
    for data, metric, told in (
        (one_kind, "no_ans_accuracy", "0 unanswerable validation rows; take another metric"),
        (one_context, "f1", "needs validation rows from several"),
        (few, "f1", "too few for a learning curve"),
    ):
        out = tmp_path / f"out-{data.name}"
        with pytest.raises(UserError, match=told):
            measure(data, out, chosen, metric, None)
        assert not list(out.rglob("training.json"))


def test_what_the_machine_cannot_hold_is_not_tried(
    small_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "_machine", lambda: 0.2)
    chosen = TrainSettings(model=str(tiny_model), bfloat16="off", epochs=1, rank=4)
    with pytest.raises(UserError, match=r"machine has 0\.2: nothing was trained; the untrained"):
        measure(small_set, tmp_path, chosen, "f1", None)
    assert not list(tmp_path.rglob("training.json"))


def test_what_was_asked_of_other_rows_is_asked_again(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    rows = read_fold(small_set, "validation")
    answerer = load_answerer(str(tiny_model))

    def judged_rows(some: list[Row], of: str) -> int:
        return len(judge(some, tmp_path / "judged", of, lambda: answerer).ids)

    assert judged_rows(rows, "a") == len(rows)
    before = (tmp_path / "judged/predictions.parquet").stat().st_mtime_ns
    assert judged_rows(rows, "a") == len(rows)
    assert (tmp_path / "judged/predictions.parquet").stat().st_mtime_ns == before
    assert judged_rows(rows[:5], "a") == 5
    assert judged_rows(rows[:5], "b") == 5
    assert (tmp_path / "judged/predictions.parquet").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("goal", "told"),
    [
        ("f2=0.5", "no metric to set a goal on"),
        ("f1=high", "high is no number"),
        ("f1=70", "above 0 and at most 1"),
        ("f1=nan", "above 0 and at most 1"),
    ],
)
def test_a_goal_that_makes_no_sense_is_said(
    goal: str, told: str, small_set: Path, tmp_path: Path
) -> None:
    done = run_command(
        "train", "plan", "--decide", "--data", small_set, "--out", tmp_path, "--goal", goal
    )
    assert done.returncode == 1 and told in done.stderr
