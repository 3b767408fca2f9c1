"""Calibrate, evaluate and ask through the installed commands, on a tiny real model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers import run_command
from sklearn.metrics import roc_auc_score

from abstain.calibrate import one_row_a_context
from abstain.groups import context_groups
from curate.record import Row, from_table, read_fold, to_table, write_table

CONTEXT = "The gate of Arden is painted red. It was built in 1432 by the masons of Corby."


@pytest.fixture(scope="module")
def evaluation(tiny_run: Path, data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    done = run_command("abstain", "evaluate", tiny_run, "--data", data_set, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_evaluation_writes_both_blocks_with_intervals(evaluation: Path, data_set: Path) -> None:
    found = json.loads((evaluation / "metrics.json").read_text())
    assert set(found["raw"]) == set(found["routed"])
    for block in ("raw", "routed"):
        for key, metric in found[block].items():
            if metric["low"] is not None:
                assert 0 <= metric["low"] <= metric["value"] + 1e-9, key
                assert metric["value"] <= metric["high"] + 1e-9, key
    assert found["rows"] == len(read_fold(data_set, "test"))
    assert sum(line["rows"] for line in found["by_reason"]) == found["rows"]
    assert {line["name"] for line in found["by_signal"]} >= {"p_abstain", "sufficiency_head"}


def test_predictions_agree_with_the_metrics(evaluation: Path) -> None:
    rows = pq.read_table(evaluation / "predictions.parquet").to_pylist()
    found = json.loads((evaluation / "metrics.json").read_text())
    raw, routed = found["raw"], found["routed"]
    assert raw["em"]["value"] == pytest.approx(sum(r["em"] for r in rows) / len(rows))
    assert raw["coverage"]["value"] == pytest.approx(
        1 - sum(r["abstained"] for r in rows) / len(rows)
    )
    assert routed["coverage"]["value"] == pytest.approx(
        sum(r["answered"] for r in rows) / len(rows)
    )
    for row in rows:
        assert row["answered"] == (
            not row["abstained"] and row["confidence"] >= found["calibration"]["threshold"]
        )


def test_the_guarantee_or_its_absence_is_stored_with_its_terms(tiny_run: Path) -> None:
    stored = json.loads((tiny_run / "abstain.json").read_text())["calibration"]
    if stored["guarantee"] is None:
        assert "infeasible" in stored["infeasible"]["text"]
    else:
        assert stored["guarantee"]["unit"] == "one seeded question a context"
    assert stored["certifications"] == 1
    assert stored["mixture"]["rows"] == "natural"


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def data(data_set: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may change."""
    return shutil.copytree(data_set, tmp_path / "data")


def test_certifying_again_for_another_target_is_refused_and_recorded(
    run: Path, data_set: Path
) -> None:
    before = (run / "abstain.json").read_text()
    again = ("abstain", "calibrate", run, "--data", data_set, "--target-risk", 0.3)
    done = run_command(*again)
    assert done.returncode == 1
    assert "void the promise" in done.stderr and "--again" in done.stderr
    assert (run / "abstain.json").read_text() == before
    done = run_command(*again, "--again", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["certifications"] == 2


def test_fresh_rows_may_certify_and_another_validation_is_another_try(
    run: Path, data: Path
) -> None:
    validation, calibration = read_fold(data, "validation"), read_fold(data, "calibration")
    again = ("abstain", "calibrate", run, "--data", data, "--target-risk", 0.5, "--json")
    write_table(to_table(validation[1:]), data / "validation.parquet")
    done = run_command(*again)
    assert done.returncode == 1 and "void the promise" in done.stderr
    # Leaving some out does not make the others fresh.
    write_table(to_table(calibration[1:]), data / "calibration.parquet")
    done = run_command(*again)
    assert done.returncode == 1 and "void the promise" in done.stderr
    fresh = [replace(row, id=f"fresh-{row.id}") for row in calibration]
    write_table(to_table(fresh), data / "calibration.parquet")
    done = run_command(*again)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["certifications"] == 1


def test_training_anew_keeps_the_ledger_and_leaves_no_head_of_before(
    run: Path, data_set: Path, tiny_model: Path
) -> None:
    anew = ("--data", data_set, "--out", run, "--model", tiny_model, "--fresh", "--epochs", 0.5)
    done = run_command("train", "run", *anew, "--head-weight", 0)
    assert done.returncode == 0, done.stderr
    assert not (run / "sufficiency_head.safetensors").exists()
    again = ("abstain", "calibrate", run, "--data", data_set, "--target-risk", 0.5)
    done = run_command(*again)
    assert done.returncode == 1 and "void the promise" in done.stderr
    done = run_command(*again, "--again")
    assert done.returncode == 0, done.stderr
    assert "left out: sufficiency_head, this model cannot give it" in done.stdout
    evaluation = ("--data", data_set, "--out", run / "evaluation", "--signals", "mc_std_head")
    done = run_command("abstain", "evaluate", run, *evaluation, "--mc-samples", 2)
    assert done.returncode == 0, done.stderr
    assert "signal 'mc_std_head' is left out" in done.stderr


def test_without_calibration_rows_there_is_a_threshold_without_guarantee(
    run: Path, data: Path
) -> None:
    write_table(to_table([]), data / "calibration.parquet")
    done = run_command("abstain", "calibrate", run, "--data", data)
    assert done.returncode == 0, done.stderr
    assert "no guarantee" in done.stdout and "of 0 contexts, none is answered" in done.stdout


def test_a_damaged_calibration_is_named_with_a_way_out(run: Path) -> None:
    stored = json.loads((run / "abstain.json").read_text())
    del stored["calibration"]["correct"]
    (run / "abstain.json").write_text(json.dumps(stored))
    done = run_command("abstain", "ask", run, "Why?", "--context", "-", input=CONTEXT)
    assert done.returncode == 1
    assert "abstain.json: damaged (KeyError('correct'))" in done.stderr


def test_the_same_certification_twice_is_one(run: Path, data_set: Path) -> None:
    before = (run / "abstain.json").read_text()
    done = run_command("abstain", "calibrate", run, "--data", data_set, "--target-risk", 0.5)
    assert done.returncode == 0, done.stderr
    assert (run / "abstain.json").read_text() == before


def test_ask_answers_or_declines_and_logs_why(tiny_run: Path, tmp_path: Path) -> None:
    context, log = tmp_path / "context.txt", tmp_path / "log" / "decisions.jsonl"
    context.write_text(CONTEXT)
    asked = ("abstain", "ask", tiny_run, "What colour is the gate of Arden?")
    done = run_command(*asked, "--context", context, "--log", log, "--json")
    assert done.returncode == 0, done.stderr
    [said] = json.loads(done.stdout)
    piped = run_command(*asked, "--context", "-", "--log", log, "--json", input=CONTEXT)
    [once_more] = json.loads(piped.stdout)
    clock = {"time", "milliseconds", "looks"}
    assert all(once_more[key] == said[key] for key in said.keys() - clock)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(entries) == 2
    for entry in entries:
        assert entry["action"] == said["action"]
        assert entry["rule"] in ("model_abstained", "below_threshold", "at_or_above_threshold")
        assert set(entry["signals"]) >= {"p_abstain", "sufficiency_head", "mean_log_likelihood"}
        assert CONTEXT not in json.dumps(entry)  # it may be private


def test_questions_asked_together_are_answered_as_alone(tiny_run: Path, tmp_path: Path) -> None:
    context, log = tmp_path / "context.txt", tmp_path / "decisions.jsonl"
    context.write_text(CONTEXT)
    questions = ("What colour is the gate of Arden?", "Who painted it?", "When was it built?")
    asked = ("--context", context, "--log", log, "--json")
    together = json.loads(run_command("abstain", "ask", tiny_run, *questions, *asked).stdout)
    assert [response["question"] for response in together] == list(questions)
    for response in together:
        done = run_command("abstain", "ask", tiny_run, response["question"], *asked)
        [alone] = json.loads(done.stdout)
        assert alone["model_answer"] == response["model_answer"]
        assert alone["action"] == response["action"]
        assert alone["confidence"] == pytest.approx(response["confidence"], abs=1e-4)
    assert len(log.read_text().splitlines()) == 6


def test_an_untrained_model_is_evaluated_with_the_same_prompt(
    tiny_model: Path, data_set: Path, tmp_path: Path
) -> None:
    done = run_command("abstain", "evaluate", tiny_model, "--data", data_set, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert "routed" not in found and found["raw"]["auroc_sufficient"]["value"] is not None
    assert "Not calibrated" in (tmp_path / "report.html").read_text()


def test_signals_that_cost_are_measured_on_request(
    tiny_run: Path, data_set: Path, tmp_path: Path
) -> None:
    done = run_command(
        *("abstain", "evaluate", tiny_run, "--data", data_set, "--out", tmp_path, "--json"),
        *("--signals", "p_true,self_consistency,mc_std_head", "--samples", 2),
        *("--mc-samples", 3, "--mc-top-k", 2),
    )
    assert done.returncode == 0, done.stderr
    by_name = {line["name"]: line for line in json.loads(done.stdout)["by_signal"]}
    assert by_name["p_true"]["passes"] == 1 and by_name["p_true"]["milliseconds"] > 0
    assert by_name["self_consistency"]["passes"] == 2
    assert by_name["mc_std_head"]["passes"] == pytest.approx(3 * 2 / 4)
    assert by_name["p_abstain"]["milliseconds"] == 0
    columns = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert {"mc_std_head", "self_consistency", "predicted_reason", "group"} <= set(columns)
    area = {
        name: roc_auc_score(columns["sufficient"], columns[name])
        for name in ("p_abstain", "sufficiency_head")
    }
    gain = by_name["sufficiency_head"]["gain"]["auroc_sufficient"]
    assert gain["value"] == pytest.approx(area["sufficiency_head"] - area["p_abstain"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    none = by_name["p_abstain"]["gain"]["coverage_at_risk_20"]
    assert none == {"value": 0, "low": 0, "high": 0}


def test_a_prompted_baseline_has_its_own_phrase_and_worked_examples(
    tiny_model: Path, tiny_run: Path, data_set: Path, tmp_path: Path
) -> None:
    phrase = "I need more context to answer this question"
    prompted = ("--data", data_set, "--abstention-phrase", phrase, "--shots", 2)
    done = run_command("abstain", "evaluate", tiny_model, *prompted, "--out", tmp_path / "few")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "few" / "metrics.json").read_text())
    assert found["contract"]["abstention_phrase"] == phrase
    answers = [shot["answer"] for shot in found["contract"]["shots"]]
    assert len(answers) == 2 and answers[1] == phrase and answers[0] != phrase
    done = run_command("abstain", "evaluate", tiny_run, *prompted, "--out", tmp_path / "run")
    assert done.returncode == 1 and "keeps the prompt" in done.stderr
    plain = tmp_path / "plain"
    done = run_command("abstain", "evaluate", tiny_model, "--data", data_set, "--out", plain)
    assert done.returncode == 0, done.stderr
    both = run_command("abstain", "compare", plain, tmp_path / "few", "--json")
    assert both.returncode == 0, both.stderr
    assert json.loads(both.stdout)["rows"] == found["rows"]


def test_signals_are_listed_with_their_cost() -> None:
    listed = json.loads(run_command("abstain", "signals", "--json").stdout)
    assert {entry["name"] for entry in listed} >= {"p_abstain", "mc_mutual_information"}
    assert all(entry["what"] and entry["cost"] for entry in listed)
    done = run_command("abstain", "evaluate", "x", "--data", "y", "--out", "z", "--signals", "huh")
    assert done.returncode == 1 and "unknown signal 'huh'" in done.stderr


def test_rows_that_go_back_to_one_context_are_one_group() -> None:
    rows = [
        Row("a", "x y", id="1", context_id="c1"),
        Row("b", "x y", id="2", context_id="c1"),
        Row("a", "x", id="3", context_id="c2", parent_id="1"),  # without a word of it
        Row("a", "", id="4", parent_id="3"),
        Row("c", "z", id="5", context_id="c3"),
        Row("c", "", id="6", parent_id="gone"),
        Row("d", "not yet clustered", id="7"),
        Row("e", "Not yet, clustered", id="8"),
    ]
    groups = context_groups(rows)
    assert groups[0] == groups[1] == groups[2] == groups[3] == "c1"
    assert groups[4:6] == ["c3", "6"]
    assert groups[6] == groups[7]
    circle = [Row("a", "x", id="1", parent_id="2"), Row("b", "y", id="2", parent_id="1")]
    assert len(context_groups(circle)) == 2


def test_one_row_a_context_draws_by_seed_and_keeps_rows_without_context() -> None:
    rows = [
        Row(f"q{i}", "", id=f"id{i}", context_id=f"c{i // 5}" if i < 20 else "") for i in range(24)
    ]
    drawn = one_row_a_context(rows, 1)
    assert sorted(row.context_id for row in drawn) == ["", "", "", "", "c0", "c1", "c2", "c3"]
    assert drawn == one_row_a_context(list(reversed(rows)), 1)
    assert any(one_row_a_context(rows, seed) != drawn for seed in range(2, 6))


def share_documents(folder: Path) -> None:
    write_table(to_table(read_fold(folder, "train")), folder / "calibration.parquet")


def too_few_rows(folder: Path) -> None:
    rows = from_table(pq.read_table(folder / "validation.parquet"))[:5]
    write_table(to_table(rows), folder / "validation.parquet")


def truncate(folder: Path) -> None:
    file = folder / "validation.parquet"
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (share_documents, "documents are in train"),
        (too_few_rows, "5 validation rows, and at least 20 are needed"),
        (truncate, "validation.parquet: not a whole Parquet file"),
        (lambda folder: (folder / "calibration.parquet").unlink(), "calibration.parquet"),
    ],
)
def test_calibration_refuses_data_that_would_mislead(
    tiny_run: Path, data: Path, change: Any, message: str
) -> None:
    change(data)
    before = (tiny_run / "abstain.json").read_text()
    done = run_command("abstain", "calibrate", tiny_run, "--data", data, "--target-risk", 0.5)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert (tiny_run / "abstain.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("calibrate", "/nowhere", "--data", "/nowhere"), "has no abstain.json"),
        (("evaluate", "/nowhere", "--data", "/nowhere", "--out", "{out}"), "cannot load model"),
        (("ask", "/nowhere", "Why?", "--context", "/no-such-file"), "cannot read /no-such-file"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run_command("abstain", *(a.format(out=tmp_path) for a in arguments))
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_context_that_is_not_utf8_is_named_with_its_offset(
    tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "context.txt").write_bytes(b"The gate is \xff red.")
    done = run_command("abstain", "ask", tiny_run, "Why?", "--context", tmp_path / "context.txt")
    assert done.returncode == 1
    assert "byte 0xff at offset 12" in done.stderr
    asked = ("abstain", "ask", tiny_run, "Why?", "--context", "-")
    done = run_command(*asked, input="The gate is \xff red.", encoding="latin-1")
    assert done.returncode == 1
    assert "standard input: not valid UTF-8: byte 0xff at offset 12" in done.stderr


@pytest.mark.parametrize("command", ["curate", "train", "abstain"])
def test_help_teaches_every_subcommand(command: str) -> None:
    top = run_command(command, "--help")
    assert top.returncode == 0
    names = [
        line.split()[0] for line in top.stdout.split("Commands:")[1].splitlines() if line.strip()
    ]
    for name in names:
        done = run_command(command, name, "--help")
        assert done.returncode == 0
        assert len(done.stdout) > 150, f"{command} {name} --help says little"
