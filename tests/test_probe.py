"""The probe and the reason head find what is planted in hidden states, and nothing in noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from abstain import probe, reason
from abstain.folds import group_folds
from curate.errors import UserError

ROWS, LAYERS, HIDDEN = 240, 12, 24


def planted(seed: int = 0) -> tuple[Any, Any, list[str], Any]:
    """Noise in all layers; in layers 6 and 8 a direction tells the label. Five rows a group."""
    draw = np.random.default_rng(seed)
    labels = draw.random(ROWS) < 0.5
    hidden = draw.normal(size=(ROWS, LAYERS + 1, HIDDEN)).astype(np.float32)
    for layer in (6, 8):
        hidden[:, layer, 3] += np.where(labels, 0.9, -0.9)
    # What a row shares with its group is no evidence, and must not leak into cross-fitting.
    groups = [f"g{i // 5}" for i in range(ROWS)]
    return hidden, labels, groups, draw


def test_folds_never_divide_a_group() -> None:
    groups = [f"g{i % 17}" for i in range(100)]
    seen: list[int] = []
    for train, test in group_folds(groups):
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        seen += list(test)
    assert sorted(seen) == list(range(100))
    assert group_folds(["one"] * 9) == []


def test_the_probe_finds_the_layers_that_tell() -> None:
    hidden, labels, groups, _ = planted()
    found = probe.fit(hidden, labels, groups)
    assert {6, 8} <= set(found.probe.layers)
    assert found.auroc == pytest.approx(roc_auc_score(labels, found.logits))
    assert found.auroc > 0.85
    for head, left_out in found.folds:
        with torch.no_grad():
            states = torch.from_numpy(hidden[left_out][:, list(found.probe.layers)])
            assert head(states).numpy() == pytest.approx(found.logits[left_out], abs=1e-3)
    fresh, truth, _, _ = planted(seed=1)
    with torch.no_grad():
        logits = found.probe(torch.from_numpy(fresh[:, list(found.probe.layers)])).numpy()
    assert roc_auc_score(truth, logits) == pytest.approx(found.auroc, abs=0.06)


def test_cross_fitted_logits_of_noise_are_worth_nothing() -> None:
    hidden, _, groups, draw = planted()
    hidden = draw.normal(size=hidden.shape).astype(np.float32)
    labels = draw.random(ROWS) < 0.5
    found = probe.fit(hidden, labels, groups)
    # Layers and penalty are picked by the same folds, so that a little stays.
    assert abs(found.auroc - 0.5) < 0.12
    with torch.no_grad():
        own = found.probe(torch.from_numpy(hidden[:, list(found.probe.layers)])).numpy()
    assert roc_auc_score(labels, own) > found.auroc  # what a fit says of its own rows


def test_the_probe_is_stored_and_comes_back(tmp_path: Path) -> None:
    hidden, labels, groups, _ = planted()
    found = probe.fit(hidden, labels, groups).probe
    found.save(tmp_path, probe.FILE)
    again = probe.load_probe(tmp_path)
    assert again is not None and again.layers == found.layers
    states = torch.from_numpy(hidden[:5, list(found.layers)])
    assert torch.equal(again(states), found(states))
    assert probe.load_probe(tmp_path / "elsewhere") is None


def coded(draw: Any) -> tuple[Any, list[str], list[str]]:
    """Three codes, told by two directions of layer 8; some rows say no code."""
    codes = [
        ["evidence_missing", "false_premise", "no_context", "unlabelled"][i % 4]
        for i in range(ROWS)
    ]
    hidden = draw.normal(size=(ROWS, LAYERS + 1, HIDDEN)).astype(np.float32)
    hidden[:, 8, 0] += np.array([4.0 * (code == "false_premise") for code in codes])
    hidden[:, 8, 1] += np.array([4.0 * (code == "no_context") for code in codes])
    return hidden, codes, [f"g{i // 5}" for i in range(ROWS)]


def test_the_reason_head_tells_codes_apart_and_reports_honestly(tmp_path: Path) -> None:
    hidden, codes, groups = coded(np.random.default_rng(3))
    found = reason.fit(hidden, codes, groups)
    assert found is not None
    assert found.head.layer == 8 and "unlabelled" not in found.head.codes
    assert found.macro_f1 > 0.85
    counted = {code: sum(said.values()) for code, said in found.confusion.items()}
    assert counted == dict.fromkeys(found.head.codes, 60)
    found.head.save(tmp_path)
    again = reason.load_reason_head(tmp_path)
    assert again is not None
    fresh, truth, _ = coded(np.random.default_rng(4))
    with torch.no_grad():
        said = again.reasons(torch.from_numpy(fresh[:, 8]))
    known = [i for i, code in enumerate(truth) if code != "unlabelled"]
    pairs = [truth[i] for i in known], [said[i] for i in known]
    score = f1_score(*pairs, labels=again.codes, average="macro")
    assert score == pytest.approx(found.macro_f1, abs=0.1)


def test_what_is_not_likelier_than_not_is_unknown() -> None:
    assert reason.named(np.array([[0.5, 0.5], [0.2, 0.8]]), ("a", "b")) == ["unknown", "b"]


def test_one_code_teaches_no_reason_head() -> None:
    hidden, _, groups = coded(np.random.default_rng(3))
    assert reason.fit(hidden, ["no_context"] * ROWS, groups) is None
    assert reason.fit(hidden, ["unlabelled"] * ROWS, groups) is None
    rare = ["false_premise"] * 3 + ["no_context"] * (ROWS - 3)
    assert reason.fit(hidden, rare, groups) is None


def test_a_damaged_reason_head_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2, 3)}, tmp_path / reason.FILE)
    with pytest.raises(UserError, match=r"reason_head\.safetensors: damaged"):
        reason.load_reason_head(tmp_path)
