"""Calibration in this process, on a tiny real model: what is chosen, certified, stored, refused."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from abstain.answerer import Answerer, load_answerer
from abstain.calibrate import Request, calibrate, describe, one_row_a_context
from abstain.calibration import Calibration
from abstain.evidence import DropoutSettings, Evidence
from abstain.groups import fold_groups
from abstain.predict import answer_all
from abstain.router import Threshold
from abstain.run import RunFile, policy_hash, read_run_file, weights_hash
from abstain.signals import SIGNALS, chosen
from abstain.threshold import Goal, Procedure
from curate.errors import UserError
from curate.record import Row, read_fold, to_table, write_table

CHEAP = ("p_abstain", "sufficiency_head", "mean_log_likelihood")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, not calibrated."""
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    stored = json.loads((copy / "abstain.json").read_text())
    (copy / "abstain.json").write_text(json.dumps({**stored, "calibration": None, "ledger": []}))
    for name in ("probe.safetensors", "reason_head.safetensors"):
        (copy / name).unlink(missing_ok=True)
    return copy


@pytest.fixture
def answerer(run: Path) -> Answerer:
    return load_answerer(str(run))


def test_dear_signals_are_gathered_and_only_those_that_were_chosen_later(
    run: Path, data_set: Path, answerer: Answerer
) -> None:
    dropout = DropoutSettings(samples=3, top_k=2)
    request = Request(
        certify=False,
        signals=chosen("all"),
        evidence=Evidence(p_true=True, samples=3, dropout=dropout, laplace=2),
    )
    result = calibrate(run, data_set, answerer, request, again=False)
    used = {*result.correct.signals, *result.sufficient.signals}
    needs = {SIGNALS[name].needs for name in used}
    assert (result.evidence.dropout is not None) == ("dropout" in needs)
    assert (result.evidence.samples > 0) == ("samples" in needs)
    assert (result.evidence.laplace > 0) == ("laplace" in needs)
    tried = {
        signal
        for candidate in result.details["selection"]["sufficient"]["candidates"]
        for signal in candidate["signals"]
    }
    assert result.details["selection"]["sufficient"]["of"] > len(SIGNALS) and tried
    assert result.details["certifications"] == 0 and result.threshold.guarantee is None
    # A run that is loaded again gathers what its calibration needs, and answers alike.
    again = load_answerer(str(run))
    assert again.evidence == result.evidence
    assert set(again.heads) == {"head", "probe"} and again.laplace is not None
    rows = read_fold(data_set, "test")[:4]
    for one, other in zip(answer_all(again, rows), answer_all(answerer, rows), strict=True):
        assert one.probe_logit == pytest.approx(other.probe_logit, abs=1e-4)


@pytest.mark.parametrize("procedure", ["fixed-sequence", "holm", "sgr", "crc"])
def test_every_procedure_ends_in_a_promise_or_says_why_not(
    run: Path, data_set: Path, answerer: Answerer, procedure: Procedure
) -> None:
    request = Request(Goal(0.9, 0.2, procedure), signals=CHEAP)
    result = calibrate(run, data_set, answerer, request, again=False)
    guarantee = result.threshold.guarantee
    if guarantee is None:
        assert "infeasible" in describe(result) and "no guarantee" in describe(result)
        return
    assert guarantee["procedure"] == procedure
    assert f"certified by {procedure}" in describe(result)
    if procedure == "crc":
        assert "on average, at most 90% of all questions" in result.threshold.promise()
    assert read_run_file(run).calibration == result


def test_tries_are_counted_whatever_comes_between(run: Path, data_set: Path) -> None:
    def attempt(request: Request, again: bool = False) -> int:
        answerer = load_answerer(str(run), calibrated=False)
        result = calibrate(run, data_set, answerer, request, again)
        return int(result.details["certifications"])

    first, other = (Request(Goal(risk), signals=CHEAP) for risk in (0.3, 0.5))
    without = Request(certify=False, signals=CHEAP)
    assert attempt(first) == 1
    assert attempt(without) == attempt(without) == 1
    assert attempt(first) == 1
    with pytest.raises(UserError, match=r"target risk 0\.3, δ 0\.05.*void the promise"):
        attempt(other)
    assert attempt(other, again=True) == 2
    assert attempt(first) == 2


def test_pooled_counts_every_question_and_says_what_it_assumes(
    run: Path, data_set: Path, answerer: Answerer
) -> None:
    one = calibrate(run, data_set, answerer, Request(Goal(0.9, 0.2), signals=CHEAP), again=False)
    pooled = Request(Goal(0.9, 0.2), pooled=True, signals=CHEAP)
    all_of_them = calibrate(run, data_set, load_answerer(str(run)), pooled, again=True)

    def units(result: Calibration) -> int:
        counted = result.details["mixture"]
        return int(counted["sufficient"] + counted["insufficient"])

    assert units(all_of_them) > units(one)
    assert all_of_them.details["certifications"] == 2
    if all_of_them.threshold.guarantee is not None:
        assert "assumes independence" in all_of_them.threshold.guarantee["unit"]


@pytest.mark.parametrize("aim", ["cost", "coverage", "f1"])
def test_without_certification_the_threshold_suits_its_aim(
    run: Path, data_set: Path, answerer: Answerer, aim: Any
) -> None:
    request = Request(certify=False, aim=aim, coverage=0.2, signals=CHEAP)
    result = calibrate(run, data_set, answerer, request, again=False)
    assert result.details["without_guarantee"]["aim"] == aim
    assert result.threshold.value is not None
    assert result.threshold.promise() == "no guarantee"
    # It looks at no calibration row, so that these are still fresh for a certification.
    certified = calibrate(
        run, data_set, load_answerer(str(run)), Request(signals=CHEAP), again=False
    )
    assert certified.details["certifications"] == 1


def test_exact_match_is_a_stricter_right(run: Path, data_set: Path, answerer: Answerer) -> None:
    request = Request(Goal(0.9, 0.2), certify=True, right_f1=1.0, signals=CHEAP)
    result = calibrate(run, data_set, answerer, request, again=False)
    assert result.right_f1 == 1.0
    if result.threshold.guarantee is not None:
        assert "an exact match" in result.threshold.guarantee["loss"]


def test_no_document_may_be_in_two_of_the_splits(
    run: Path, data_set: Path, answerer: Answerer, tmp_path: Path
) -> None:
    data = shutil.copytree(data_set, tmp_path / "data")
    shared = read_fold(data, "validation")
    write_table(to_table(shared), data / "calibration.parquet")
    message = rf"in validation and in calibration, for example .*{shared[0].document_id[:4]}"
    with pytest.raises(UserError, match=message):
        calibrate(run, data, answerer, Request(signals=CHEAP), again=False)


def test_a_value_that_is_not_finite_is_named_with_its_row(
    run: Path, data_set: Path, answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = read_fold(data_set, "validation")[2]

    def least_token(row: Row, _: Any) -> float:
        return float("nan") if row.id == third.id else 0.0

    broken = replace(SIGNALS["least_token"], value=least_token)
    monkeypatch.setitem(SIGNALS, "least_token", broken)
    request = Request(certify=False, signals=("least_token",))
    with pytest.raises(UserError, match=f"'least_token' is not finite on 1 of .*{third.id}"):
        calibrate(run, data_set, answerer, request, again=False)


def test_one_class_on_validation_calibrates_to_its_rate(
    run: Path, data_set: Path, answerer: Answerer, tmp_path: Path
) -> None:
    data = shutil.copytree(data_set, tmp_path / "data")
    kept = [row for row in read_fold(data, "validation") if row.sufficient]
    extra = [replace(row, id=f"{row.id}-{n}") for row in kept for n in range(20 // len(kept) + 1)]
    write_table(to_table(extra), data / "validation.parquet")
    request = Request(certify=False, signals=(*CHEAP, "probe"))
    result = calibrate(run, data, answerer, request, again=False)
    sure = result.sufficient.probability(np.zeros((1, len(result.sufficient.signals))))
    assert sure == pytest.approx((len(extra) + 1) / (len(extra) + 2))


def test_a_guarantee_ends_with_the_weights_that_it_was_certified_for(
    run: Path, data_set: Path, answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    result = calibrate(run, data_set, answerer, Request(certify=False, signals=CHEAP), again=False)
    promise = {
        "target_risk": 0.1,
        "delta": 0.05,
        "certifications": 1,
        "policy_hash": policy_hash(run, answerer.contract, result),
    }
    promised = replace(result, threshold=Threshold(result.threshold.value, promise))
    RunFile(answerer.contract, promised).write(run)
    kept = read_run_file(run).calibration
    assert kept is not None and kept.threshold.guarantee == promise

    laxer = replace(promised, threshold=Threshold(0.01, promise))
    RunFile(answerer.contract, laxer).write(run)
    with caplog.at_level(logging.WARNING):
        changed = read_run_file(run).calibration
    assert changed is not None and changed.threshold.guarantee is None
    assert changed.threshold.value == 0.01 and "no longer holds" in caplog.text

    RunFile(answerer.contract, promised).write(run)
    adapter = run / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"\x01")
    trained_on = read_run_file(run).calibration
    assert trained_on is not None and trained_on.threshold.guarantee is None


def test_a_guarantee_ends_with_the_base_beneath_the_adapter(
    run: Path, data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((run / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base)
    (run / "adapter_config.json").write_text(json.dumps(config))
    before = weights_hash(run)
    assert weights_hash(run) == before
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert weights_hash(run) != before


@pytest.mark.parametrize("same", ["document_id", "context_id", "parent_id"])
def test_nothing_may_be_in_train_and_in_calibration(
    run: Path, data_set: Path, answerer: Answerer, tmp_path: Path, same: str
) -> None:
    data = shutil.copytree(data_set, tmp_path / "data")
    rows = read_fold(data, "calibration")
    train = read_fold(data, "train")[0]
    name = train.id if same == "parent_id" else getattr(train, same)
    write_table(
        to_table([replace(rows[0], **{same: name}), *rows[1:]]), data / "calibration.parquet"
    )
    with pytest.raises(UserError, match=f"are in train and in calibration.*{name}"):
        calibrate(run, data, answerer, Request(signals=CHEAP), again=False)


def test_hidden_states_that_are_not_finite_are_named(
    run: Path, data_set: Path, answerer: Answerer
) -> None:
    with torch.no_grad():
        answerer.loaded.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UserError, match="hidden state is not finite"):
        calibrate(run, data_set, answerer, Request(certify=False), again=False)


def test_derived_rows_go_back_to_the_context_of_their_parent() -> None:
    parent = Row("Who?", "Ann and Bob met.", id="p", context_id="c", method="human")
    derived = [
        Row(
            "Who?",
            f"Ann {n}.",
            id=f"d{n}",
            context_id=f"x{n}",
            parent_id="p",
            method="evidence_removed",
        )
        for n in range(5)
    ]
    assert len(one_row_a_context(derived, 1, [parent, *derived])) == 1
    assert len(one_row_a_context(derived, 1)) == 5  # what the parent alone can tell


def test_folds_are_documents_where_there_are_enough_of_them() -> None:
    rows = [
        Row(f"q{i}", f"context {i // 2}", id=str(i), document_id=f"d{i // 4}") for i in range(20)
    ]
    assert fold_groups(rows) == ([f"d{i // 4}" for i in range(20)], True)
    groups, across_documents = fold_groups(rows[:16])
    assert not across_documents and len(set(groups)) == 8


def test_a_probe_judged_within_one_document_is_shown_but_not_chosen(
    run: Path, data_set: Path, answerer: Answerer, tmp_path: Path
) -> None:
    data = shutil.copytree(data_set, tmp_path / "data")
    rows = read_fold(data, "validation")
    one = [replace(row, document_id=rows[0].document_id) for row in rows]
    write_table(to_table(one), data / "validation.parquet")
    request = Request(certify=False, signals=("probe", "p_abstain"))
    result = calibrate(run, data, answerer, request, again=False)
    assert result.details["cross_validated_over"] == "contexts"
    assert result.details["probe"] is not None
    assert "probe" not in {*result.correct.signals, *result.sufficient.signals}
    assert "left out: probe, validation has fewer than 5 documents" in describe(result)
