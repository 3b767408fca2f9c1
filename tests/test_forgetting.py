"""What a run has unlearnt is measured, rehearsed, bounded; averaging goes back towards the base."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command

from abstain.head import SufficiencyHead
from abstain.model import LoadedModel, load_model
from abstain.prefix import Tree, forward
from curate.contract import Contract
from train import rehearsal as rehearsing
from train import steps, trainer
from train.collate import Example, make_pack
from train.forgetting import Abilities, Forgetting, abilities, refuses
from train.methods import METHODS, Name, wrap
from train.methods.average import average
from train.probes import probes
from train.rehearsal import rehearsal
from train.settings import TrainSettings

AVERAGED: list[Name] = [name for name, method in METHODS.items() if method.averages]


def settings(model: Path, method: Name = "lora", **given: Any) -> TrainSettings:
    values = {"rank": 4, "top_layers": 2, "bfloat16": "off", "epochs": 1, **given}
    return TrainSettings(model=str(model), method=method, **values)  # type: ignore[arg-type]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    tree = Tree()
    tree.add([5, 6, 7, 8, 9])
    return forward(model, tree, range(5)).logits


def test_bits_a_byte_are_those_of_the_models_own_loss(real_model: LoadedModel) -> None:
    found = abilities(real_model, Contract())
    nats = count = 0.0
    for text in probes().text:
        ids = real_model.tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            nats += float(real_model.model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += len(text.encode()) - len(real_model.tokenizer.decode(ids[0, :1]).encode())
    assert found.bits_a_byte == pytest.approx(nats / math.log(2) / count, rel=1e-4)
    assert 0.5 < found.bits_a_byte < 2
    assert found.closed_book > 0.3 and found.refusals == 0


def test_a_change_has_the_interval_that_few_probes_leave() -> None:
    def side(bits: list[float], right: list[float]) -> Abilities:
        each = {"bits_a_byte": bits, "instructions": right, "closed_book": right,
                "gold_nats": right, "refusals": right}  # fmt: skip
        return Abilities(sum(bits) / 100, sum(right) / 4, sum(right) / 4, 0, 0, each)

    found = Forgetting(side([10, 20, 30], [1, 1, 0, 1]), side([11, 24, 30], [1, 0, 0, 1]))
    bits, right = found.changes()["bits_a_byte"], found.changes()["closed_book"]
    assert bits["value"] == pytest.approx(found.lost) == pytest.approx(5 / 60)
    # Nearly as if one text alone had been drawn thrice: the third, or the second.
    assert 0 <= bits["low"] < 0.03 and 0.15 < bits["high"] <= 0.2  # type: ignore[operator]
    assert right["value"] == -0.25 and right["low"] < 0 <= right["high"]  # type: ignore[operator]
    assert "-0.250 [" in found.text()


def test_each_probe_accepts_its_own_good_reply() -> None:
    import re

    for probe in [*probes().instructions, *probes().closed_book]:
        assert re.search(probe.expect, probe.gold), probe
    asked = {probe.ask for probe in [*probes().instructions, *probes().closed_book]}
    assert not asked & set(probes().rehearsal)


@pytest.mark.parametrize(
    ("said", "refused"),
    [("unanswerable", True), (" Unanswerable.", True), ("Unanswerable, as the context", True),
     ("Paris", False), ("", False), ("It is not unanswerable", False)],
)  # fmt: skip
def test_over_refusal_is_the_phrase_or_what_begins_with_it(said: str, refused: bool) -> None:
    assert refuses(Contract(), said) == refused


def test_rehearsed_replies_are_the_models_own_and_have_no_label(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(tiny_model))
    count = len(probes().rehearsal) + 2
    chosen = settings(tiny_model, replay=1.0, seed=3)
    first, again = (rehearsal(loaded, chosen, count, tmp_path / name) for name in "ab")
    assert first == again and len(first) == count
    monkeypatch.setattr(rehearsing, "reply", None)  # a resumed run asks nothing
    assert rehearsal(loaded, chosen, count, tmp_path / "a") == first
    assert all(example.sufficient is None and example.answer for example in first)
    with torch.no_grad():
        tree = Tree()
        tree.add(first[0].prompt)
        likeliest = forward(loaded.model, tree, [len(tree) - 1]).logits.argmax(-1)
    assert first[0].answer[0] == int(likeliest)
    assert first[-2].prompt == first[0].prompt and first[-2].answer != first[0].answer


def test_the_head_learns_nothing_from_what_has_no_label(tiny_model: Path) -> None:
    import contextlib

    loaded = load_model(str(tiny_model))
    model = wrap(loaded.model, settings(tiny_model), 10).model.train()
    head = SufficiencyHead((2, 3), 32)
    packs = [[Example("r", "r", (5, 6, 7), (8, 9), None)]]
    losses = steps.backward(model, head, packs, 1.0, contextlib.nullcontext, 512)
    assert head.weight.grad is None and losses.rows == 0 and losses.tokens == 2
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("method", ["lora", "bottleneck", "prompt"])
def test_the_divergence_from_the_base_is_that_of_its_definition(
    tiny_model: Path, method: Name
) -> None:
    loaded = load_model(str(tiny_model))
    plain = load_model(str(tiny_model)).model
    model = wrap(loaded.model, settings(tiny_model, method), 10).model.eval()
    pack = make_pack([Example("r", "r", (5, 6, 7), (8, 9, 10), None)])
    if method != "prompt":  # virtual tokens change something from the beginning
        assert float(steps.divergence(model, pack)) == pytest.approx(0, abs=1e-6)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    before = forward(plain, pack.tree, list(pack.answer_at)).logits.softmax(-1)
    now = forward(model, pack.tree, list(pack.answer_at)).logits.softmax(-1)
    expected = (before * (before.log() - now.log())).sum()
    found = steps.divergence(model, pack)
    assert float(found) == pytest.approx(float(expected), rel=1e-3) and float(found) > 1e-4
    found.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("method", AVERAGED)
def test_averaging_goes_from_the_base_to_the_trained_model(tiny_model: Path, method: Name) -> None:
    plain = logits(load_model(str(tiny_model)).model)

    def at(share: float) -> torch.Tensor:
        model = wrap(load_model(str(tiny_model)).model, settings(tiny_model, method), 10).model
        torch.manual_seed(0)
        for name, parameter in model.eval().named_parameters():
            if parameter.requires_grad and not name.endswith("gate"):
                with torch.no_grad():
                    parameter.add_(0.02 * torch.randn_like(parameter))
        average(model, settings(tiny_model, method, average=share))
        return logits(model)

    whole, half, nothing = at(1.0), at(0.5), at(1e-9)
    assert torch.allclose(nothing, plain, atol=1e-4)
    assert not torch.allclose(whole, plain, atol=1e-3)
    assert (half - plain).norm() < (whole - plain).norm()


def test_averaging_what_is_no_sum_is_refused_before_training(
    data_set: Path, tmp_path: Path
) -> None:
    done = run_command("train", "run", "--data", data_set, "--out", tmp_path / "run",
                       "--method", "dora", "--average", 0.7)  # fmt: skip
    assert done.returncode == 1 and "not with dora" in done.stderr
    assert not (tmp_path / "run").exists()


def test_another_average_needs_no_other_training(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    whole = trainer.run(data_set, tmp_path, settings(tiny_model, learning_rate=0.01))
    plain = logits(load_model(str(tiny_model)).model)
    there = logits(load_model(str(tmp_path)).model)
    half = trainer.run(data_set, tmp_path, settings(tiny_model, learning_rate=0.01, average=0.5))
    assert half.history == whole.history and whole.averaged is None
    assert half.averaged is not None and half.averaged["answer"] != whole.evaluations[-1]["answer"]
    between = logits(load_model(str(tmp_path)).model)
    assert 0.2 < (between - plain).norm() / (there - plain).norm() < 0.8


def test_rehearsal_makes_no_steps_of_its_own() -> None:
    rows = [[Example(str(i), str(i), (1, 2), (3,), True)] for i in range(20)]
    plan = steps.plan(rows, rows=4, seed=1, epochs=2)
    replies = [Example(f"r{i}", f"r{i}", (1,), (2,), None) for i in range(7)]
    found = steps.with_rehearsal(plan, replies, epochs=2, seed=1)
    assert len(found) == len(plan)
    added = [pack for batch in found for pack in batch if pack[0].sufficient is None]
    assert sorted(pack[0].row_id for pack in added) == sorted(2 * [f"r{i}" for i in range(7)])
    assert {len(new) - len(old) for new, old in zip(found, plan, strict=True)} <= {1, 2}


def test_a_run_that_forgets_more_than_allowed_fails_and_is_kept(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["--data", data_set, "--out", run, "--model", tiny_model, "--epochs", 0.5]
    done = run_command("train", "run", *arguments, "--forgetting-limit", 5)
    assert done.returncode == 0, done.stderr
    stored = json.loads((run / "training.json").read_text())
    found = json.loads(run_command("train", "forgetting", run, "--json").stdout)
    assert stored["forgetting"] == found
    # A random model has nothing to forget: what it would be like if it had.
    stored["forgetting"]["lost"] = 0.25
    (run / "training.json").write_text(json.dumps(stored))
    again = run_command("train", "run", *arguments, "--forgetting-limit", 0.2)
    assert again.returncode == 1 and "Traceback" not in again.stderr
    assert "+25.0% bits a byte, above the limit of 20.0%" in again.stderr
    assert "--replay" in again.stderr and (run / "adapter_model.safetensors").exists()


def test_rehearsal_holds_plain_text_better_than_none(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """On a random model, whose replies are noise: only that its distributions are held."""
    divergences = []
    loaded = load_model(str(tiny_model))
    chosen = settings(tiny_model, replay=1.0, seed=99)
    held = [make_pack([example]) for example in rehearsal(loaded, chosen, 4, tmp_path)]
    for name, more in (("none", {}), ("kl", {"replay": 1.0, "kl": 1.0})):
        chosen = settings(tiny_model, epochs=3, learning_rate=0.02, patience=99, **more)
        trainer.run(data_set, tmp_path / name, chosen)
        model = load_model(str(tmp_path / name)).model
        divergences.append(sum(float(steps.divergence(model, pack)) for pack in held))
    assert divergences[1] < 0.7 * divergences[0]


def test_divergence_without_rehearsal_is_refused(data_set: Path, tmp_path: Path) -> None:
    done = run_command("train", "run", "--data", data_set, "--out", tmp_path, "--kl", 1)
    assert done.returncode == 1 and "give replay too" in done.stderr
