"""`train search`: settings that do better than the defaults, or the finding that none do.

Each trial trains on the train split and is judged on the validation split; the study is kept in
SQLite, and a search that was killed goes on, its last trial from that one's checkpoint. The test
split is read once, in the end, to compare the best settings with the defaults: what was chosen on
validation rows looks better there than it is.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from abstain.answerer import load_answerer
from abstain.compare import compare
from abstain.evaluate import store
from abstain.metrics import Metrics, compute
from abstain.predict import predict
from curate.bootstrap import Interval
from curate.errors import UserError
from curate.files import read_json, writable_folder, write_json, write_text
from curate.record import digest, read_fold
from train import trainer
from train.checkpoint import Progress
from train.search_result import LOWER, Found, tried
from train.settings import TrainSettings, changed
from train.space import Space, holds, sampler, value_of

log = logging.getLogger(__name__)

STUDY, BEST, RESULT, DEFAULTS = "study.sqlite", "best.yaml", "search.json", "defaults"
LOSS = "loss"
METRICS = (
    LOSS, "coverage_at_risk_05", "coverage_at_risk_10", "coverage_at_risk_20", "em", "f1",
    "has_ans_f1", "no_ans_accuracy", "abstention_f1", "auroc_sufficient", "auroc_correct", "aurc",
    "augrc", "prr",
)  # fmt: skip
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


def search(plan: Search, trials: int, minutes: float | None = None) -> Found:
    """Go on until the study has so many trials, or the time is over; trials are kept on disk.

    Raises `UserError` where the folder holds a search for something else, or where the settings to
    beat cannot be trained with themselves.
    """
    if plan.metric not in METRICS:
        raise UserError(f"--metric {plan.metric}: unknown; there are {', '.join(METRICS)}")
    writable_folder(plan.out)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _study(plan)
    defaults = _judged(plan, plan.settings, plan.out / DEFAULTS)
    if holds(plan.space, plan.settings) and not study.get_trials(deepcopy=False):
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
    return _result(plan, study, defaults)


def _tell(bar: Any, study: optuna.Study) -> None:
    bar.update()
    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        bar.set_postfix_str(f"best {study.best_value:.4f}")


def _study(plan: Search) -> optuna.Study:
    """The study of the folder, made where there is none."""
    storage = f"sqlite:///{plan.out / STUDY}"
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        direction=plan.direction,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
    )
    # From the same seed again, a search that goes on would draw what it has drawn before.
    seed = plan.settings.seed + len(study.get_trials(deepcopy=False))
    study.sampler = sampler(plan.how, plan.space, seed)
    about = {
        "metric": plan.metric,
        "data": str(plan.data.resolve()),
        "settings": {**plan.settings.model_dump(), "learning_rate": plan.settings.rate},
        "space": {name: str(of) for name, of in plan.space.items()},
    }
    for name, value in about.items():
        before = study.user_attrs.setdefault(name, value)
        if before != value:
            raise UserError(
                f"{plan.out}: holds a search with another {name} ({before}, now {value}); "
                "give another --out"
            )
        study.set_user_attr(name, value)
    return study


def _again(study: optuna.Study) -> None:
    """What a killed process left unfinished is tried first, with the same values."""
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get("again") for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        if _interrupted(trial) and trial.params and trial.number not in repeated:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial runs no more and has not come to an end; what fails says why in a note."""
    unfinished = trial.state in (TrialState.RUNNING, TrialState.WAITING)
    return unfinished or (trial.state == TrialState.FAIL and "note" not in trial.user_attrs)


def _objective(plan: Search, trial: optuna.Trial) -> float:
    values = {name: _suggested(trial, name, of) for name, of in plan.space.items()}
    trial.set_user_attr("settings", values)
    folder = plan.out / "trials" / digest(repr(sorted(values.items())))[:12]
    trial.set_user_attr("folder", str(folder))

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
    trial.set_user_attr("metrics", found)
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
    best = progress.best()
    if best is None:
        raise UserError(f"{plan.data}: a search needs a validation split")
    found = {LOSS: best["answer"]}
    if plan.metric != LOSS:
        rows = [row for row in read_fold(plan.data, "validation") if row.sufficient is not None]
        found |= compute(predict(load_answerer(str(run)), rows, "judge").raw)
    # What is undefined on these rows; JSON has no NaN.
    write_json(done, {name: None if math.isnan(v) else v for name, v in found.items()})
    return found


def _as_trial(plan: Search, found: Metrics) -> FrozenTrial:
    """The defaults as the study's first trial, so that the sampler knows of them."""
    values = {name: value_of(plan.settings, name) for name in plan.space}
    return optuna.trial.create_trial(
        value=found[plan.metric],
        params=values,
        distributions=plan.space,
        user_attrs={"settings": values, "metrics": found, "folder": str(plan.out / DEFAULTS)},
    )


def _result(plan: Search, study: optuna.Study, defaults: Metrics) -> Found:
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = study.best_trial if complete else None
    gains: dict[str, Interval] = {}
    if best is not None:
        values = best.user_attrs["settings"]
        chosen = changed(plan.settings, values)
        said = {name: value_of(chosen, name) for name in TrainSettings.model_fields}
        write_text(plan.out / BEST, yaml.safe_dump(said, sort_keys=False))
        run = Path(best.user_attrs["folder"])
        if run != plan.out / DEFAULTS:
            gains = _gains(plan, run)
    found = Found(
        plan.metric,
        defaults[plan.metric],
        tried(best) if best is not None else None,
        [tried(trial) for trial in trials if not _interrupted(trial)],
        _importances(study, complete),
        gains,
    )
    write_json(plan.out / RESULT, found.to_json())
    return found


def _gains(plan: Search, run: Path) -> dict[str, Interval]:
    """The chosen settings against the defaults on the test split, which chose nothing."""
    evaluations = []
    rows = [row for row in read_fold(plan.data, "test") if row.sufficient is not None]
    for folder in (plan.out / DEFAULTS, run):
        out = folder / "test"
        if not (out / "predictions.parquet").exists():
            writable_folder(out)
            store(predict(load_answerer(str(folder)), rows, "test"), out)
        evaluations.append(out)
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
