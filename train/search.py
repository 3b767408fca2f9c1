"""`train search`: settings that do better than the defaults, or the finding that none do.

Each trial trains on the train split and is judged on the validation split; the study is kept in
SQLite, and a search that was killed goes on, its last trial from that one's checkpoint. The test
split only compares the best settings with the defaults, in the end: what was chosen on validation
rows looks better there than it is.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from abstain.answerer import load_answerer
from abstain.compare import compare
from abstain.metrics import Metrics, compute
from abstain.predict import predict
from abstain.run import weights_hash
from curate.bootstrap import Interval
from curate.errors import UserError
from curate.files import read_json, writable_folder, write_json, write_text
from curate.record import Row, digest, read_fold, rows_digest
from train import trainer
from train.checkpoint import Progress
from train.judge import judge
from train.search_result import LOWER, Found, tried
from train.settings import TrainSettings, changed
from train.space import Space, holds, points, sampler, value_of

log = logging.getLogger(__name__)

STUDY, BEST, RESULT = "study.sqlite", "best.yaml", "search.json"
DEFAULTS, TRIALS = "defaults", "trials"  # folders of runs
LOSS, REWARD = "loss", "abstain_reward"
METRICS = (
    LOSS, "coverage_at_risk_05", "coverage_at_risk_10", "coverage_at_risk_20", "em", "f1",
    "has_ans_f1", "no_ans_accuracy", "abstention_f1", "auroc_sufficient", "auroc_correct", "aurc",
    "augrc", "prr",
)  # fmt: skip
USUAL = 20  # trials, where nobody says how many
DEATHS = 3  # of the process, in one and the same trial, before it is given up
STARTUP = 4  # trials that run to their end before others are measured against them


@dataclass(frozen=True)
class Search:
    """What is looked for, where, and how."""

    data: Path
    out: Path
    settings: TrainSettings  # what is not varied; the defaults to beat
    space: Space
    metric: str = "coverage_at_risk_10"
    how: str = "tpe"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether more or less of the metric is wanted."""
        return "minimize" if self.metric in LOWER else "maximize"


def search(plan: Search, trials: int | None = None, minutes: float | None = None) -> Found:
    """Go on until the study has so many trials, or the time is over; trials are kept on disk.

    Without a number they are `USUAL`, or all points of a grid.

    Raises `UserError` where the folder holds a search for something else, or where the settings to
    beat cannot be trained with themselves.
    """
    _check(plan)
    splits = {fold: read_fold(plan.data, fold) for fold in ("train", "validation", "test")}
    if not _labelled(splits["validation"]):
        raise UserError(f"{plan.data}: a search needs a labelled validation split to judge on")
    writable_folder(plan.out)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _study(plan, {fold: rows_digest(rows) for fold, rows in splits.items()})
    whole = points(plan.space) if plan.how == "grid" else None
    trials = trials or whole or USUAL
    if whole is not None and trials < whole:
        log.warning("of the %d points of this grid, %d are tried: --trials", whole, trials)
    trials = min(trials, whole or trials)
    defaults = _judged(plan, plan.settings, plan.out / DEFAULTS)
    first = not study.get_trials(deepcopy=False)
    if first and holds(plan.space, plan.settings) and not math.isnan(defaults[plan.metric]):
        study.add_trial(_as_trial(plan, defaults))
    _again(study)
    done = sum(not _interrupted(trial) for trial in study.get_trials(deepcopy=False))
    with tqdm(total=trials, initial=min(done, trials), desc="search", unit="trial") as bar:
        study.optimize(
            lambda trial: _objective(plan, trial),
            n_trials=max(0, trials - done),
            timeout=None if minutes is None else 60 * minutes,
            callbacks=[lambda _, __: _tell(bar, study)],
        )
    return _result(plan, study, defaults, _labelled(splits["test"]))


def _check(plan: Search) -> None:
    """`UserError` for a metric that there is not, or that would compare what is not alike."""
    if plan.metric not in METRICS:
        raise UserError(f"--metric {plan.metric}: unknown; there are {', '.join(METRICS)}")
    if plan.metric == LOSS and REWARD in plan.space:
        raise UserError(
            f"--metric loss: is another loss for every {REWARD}; take a metric of what is said"
        )


def _labelled(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.sufficient is not None]


def _tell(bar: Any, study: optuna.Study) -> None:
    bar.update()
    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        bar.set_postfix_str(f"best {study.best_value:.4f}")


def _study(plan: Search, rows: dict[str, str]) -> optuna.Study:
    """The study of the folder, made where there is none; ``rows``: digests of the splits."""
    # Losses with different rewards for declining do not compare: no trial is stopped by them.
    median = optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
    storage = f"sqlite:///{plan.out / STUDY}"
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        direction=plan.direction,
        load_if_exists=True,
        pruner=optuna.pruners.NopPruner() if REWARD in plan.space else median,
    )
    # From the same seed again, a search that goes on would draw what it has drawn before.
    seed = plan.settings.seed + len(study.get_trials(deepcopy=False))
    study.sampler = sampler(plan.how, plan.space, seed)
    about = {
        "metric": plan.metric,
        "data": str(plan.data.resolve()),
        "rows": rows,
        "settings": {**plan.settings.model_dump(), "learning_rate": plan.settings.rate},
        "space": {name: str(of) for name, of in plan.space.items()},
    }
    for name, value in about.items():
        before = study.user_attrs.setdefault(name, value)
        if before != value:
            raise UserError(
                f"{plan.out}: holds a search with other {name} ({before}, now {value}); "
                "give another --out"
            )
        study.set_user_attr(name, value)
    return study


def _again(study: optuna.Study) -> None:
    """What a killed process left unfinished is tried first, with the same values.

    Not for ever: the last attempt says beforehand why it failed, if the process ends in it too, for
    want of memory, say.
    """
    trials = study.get_trials(deepcopy=False)
    before = {trial.number: trial.user_attrs.get("again") for trial in trials}

    def deaths(number: int | None) -> int:
        return 0 if number is None else 1 + deaths(before[number])

    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        lost = _interrupted(trial) and "note" not in trial.user_attrs
        if lost and trial.params and trial.number not in before.values():
            told: dict[str, Any] = {"again": trial.number}
            if deaths(trial.number) == DEATHS - 1:
                told["note"] = f"the process ended in it {DEATHS} times"
            study.enqueue_trial(trial.params, user_attrs=told)


def _interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial runs no more and has not come to an end; what fails says why in a note."""
    unfinished = trial.state in (TrialState.RUNNING, TrialState.WAITING)
    return unfinished or (trial.state == TrialState.FAIL and "note" not in trial.user_attrs)


def _objective(plan: Search, trial: optuna.Trial) -> float:
    values = {name: _suggested(trial, name, of) for name, of in plan.space.items()}
    trial.set_user_attr("settings", values)
    folder = plan.out / TRIALS / digest(repr(sorted(values.items())))[:12]
    # As the search's folder knows it, which may be moved.
    trial.set_user_attr("folder", str(folder.relative_to(plan.out)))

    def watch(progress: Progress) -> None:
        for number, evaluation in enumerate(progress.evaluations):
            if number not in reported:
                reported.add(number)
                # Steps of the study all head the same way as its metric.
                loss = evaluation["answer"]
                trial.report(loss if plan.direction == "minimize" else -loss, number)
        if trial.should_prune():
            raise optuna.TrialPruned

    reported: set[int] = set()
    try:
        found = _judged(plan, changed(plan.settings, values), folder, watch)
    except optuna.TrialPruned:
        trial.set_user_attr("note", f"stopped: loss above the median, {len(reported)} evaluations")
        raise
    except UserError as error:
        trial.set_user_attr("note", str(error).splitlines()[0])
        log.warning("trial %d: %s", trial.number, error)
        return math.nan  # what Optuna counts as failed
    trial.set_user_attr("metrics", _written(found))
    trial.set_user_attr("note", "")
    if math.isnan(found[plan.metric]):
        trial.set_user_attr("note", f"{plan.metric} is undefined on what this run says")
    return found[plan.metric]


def _suggested(trial: optuna.Trial, name: str, of: BaseDistribution) -> Any:
    if isinstance(of, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, of.choices)
    whole = isinstance(of, optuna.distributions.IntDistribution)
    suggest: Any = trial.suggest_int if whole else trial.suggest_float
    low, high, log = of.low, of.high, of.log  # type: ignore[attr-defined]
    return suggest(name, low, high, log=log)


def _judged(
    plan: Search,
    settings: TrainSettings,
    run: Path,
    watch: Callable[[Progress], None] | None = None,
) -> Metrics:
    """Train and judge on the validation split; what is there already is read."""
    done = run / "validation.json"
    if done.exists():
        return {name: math.nan if v is None else v for name, v in read_json(done).items()}
    progress = trainer.run(plan.data, run, settings, watch=watch)
    best = progress.averaged or progress.best()
    if best is None:
        raise UserError(f"{run}: was not validated, as it should have been")
    found = {LOSS: best["answer"]}
    if plan.metric != LOSS:
        rows = _labelled(read_fold(plan.data, "validation"))
        answerer = load_answerer(str(run), calibrated=False)
        found |= compute(predict(answerer, rows, "judge").raw)
    write_json(done, _written(found))
    return found


def _written(found: Metrics) -> dict[str, float | None]:
    """JSON has no NaN: None for what is undefined."""
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _as_trial(plan: Search, found: Metrics) -> FrozenTrial:
    """The defaults as the study's first trial, so that the sampler knows of them."""
    values = {name: value_of(plan.settings, name) for name in plan.space}
    return optuna.trial.create_trial(
        value=found[plan.metric],
        params=values,
        distributions=plan.space,
        user_attrs={"settings": values, "metrics": _written(found), "folder": DEFAULTS},
    )


def _result(plan: Search, study: optuna.Study, defaults: Metrics, test: list[Row]) -> Found:
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = study.best_trial if complete else None
    gains: dict[str, Interval] = {}
    beaten = best is not None and _better(plan, best, defaults[plan.metric])
    chosen = plan.settings
    if best is not None and beaten:
        chosen = changed(plan.settings, best.user_attrs["settings"])
        gains = _gains(plan, plan.out / best.user_attrs["folder"], test) if test else {}
    said = {name: value_of(chosen, name) for name in TrainSettings.model_fields}
    write_text(plan.out / BEST, yaml.safe_dump(said, sort_keys=False))
    value = defaults[plan.metric]
    found = Found(
        plan.metric,
        None if math.isnan(value) else value,
        tried(best) if best is not None else None,
        beaten,
        [tried(trial) for trial in trials if not _interrupted(trial)],
        _importances(study, complete),
        gains,
    )
    write_json(plan.out / RESULT, found.to_json())
    return found


def _better(plan: Search, best: FrozenTrial, defaults: float) -> bool:
    """Whether a trial does better than the defaults, which need not lie in the space."""
    value = best.value if best.value is not None else math.nan
    if math.isnan(defaults):
        return True
    return value < defaults if plan.direction == "minimize" else value > defaults


def _gains(plan: Search, run: Path, rows: list[Row]) -> dict[str, Interval]:
    """The chosen settings against the defaults on the test split, which chose nothing."""
    evaluations = []
    for folder in (plan.out / DEFAULTS, run):
        answering = partial(load_answerer, str(folder), calibrated=False)
        judge(rows, folder / "test", weights_hash(folder), answering)
        evaluations.append(folder / "test")
    differences: dict[str, Interval] = compare(evaluations, "raw").found["differences"][
        str(evaluations[1])
    ]
    return differences


def _importances(study: optuna.Study, complete: Sequence[FrozenTrial]) -> dict[str, float]:
    """fANOVA (Hutter et al. 2014): shares of the metric's variance; of few trials they say little.

    Empty where all trials gave the same, or there are not enough of them.
    """
    if len(complete) < STARTUP or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
