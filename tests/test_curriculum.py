"""What counts how much in training: weights of rows, what the model knows, rewards, preferences."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command
from safetensors.torch import load_file

from abstain.answerer import load_answerer
from abstain.model import LoadedModel, load_model
from abstain.prefix import branch_out, forward
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row, read_fold
from train import curriculum, prefer, steps, trainer
from train.collate import Example, make_example, make_pack, pack_examples, tokenise, too_long
from train.material import read_material
from train.methods import wrap
from train.settings import TrainSettings


def settings(model: Path, **given: Any) -> TrainSettings:
    values = {"bfloat16": "off", "rank": 4, "epochs": 2, "learning_rate": 1e-2, **given}
    return TrainSettings(model=str(model), **values)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load_model(str(tiny_model))


@pytest.fixture(scope="module")
def rows(data_set: Path) -> list[Row]:
    return read_fold(data_set, "train")


def examples(rows: list[Row], loaded: LoadedModel, reward: float = 0.0) -> list[Example]:
    tokenizer, end = loaded.tokenizer, loaded.end_token_id
    return [make_example(row, tokenizer, Contract(), end, reward=reward) for row in rows]


def one_context(rows: list[Row]) -> list[Row]:
    """Rows on one context, of both kinds."""
    for row in rows:
        group = [other for other in rows if other.context == row.context]
        if len({other.sufficient for other in group}) == 2:
            return group
    raise AssertionError("the data have no context with both kinds")


@pytest.fixture
def adapted(tiny_model: Path) -> Any:
    """A model as `train run` has it before its first step, without dropout."""
    model = load_model(str(tiny_model)).model
    torch.manual_seed(0)
    return wrap(model, settings(tiny_model, dropout=0.0), 10).model.train()


def gradient(model: Any, batch: steps.Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    steps.backward(model, None, batch, 0.0, torch.enable_grad, 10_000)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_row_of_weight_two_is_a_row_that_stands_there_twice(
    rows: list[Row], loaded: LoadedModel, adapted: Any
) -> None:
    """Over a pass; and as much so where it has a step to itself."""
    group = examples(one_context(rows), loaded)
    heavy = [replace(group[0], weight=2.0), *group[1:]]
    twice = [replace(group[0], row_id="again"), *group]
    tokens, more = steps.counts([heavy]).tokens, steps.counts([twice]).tokens
    one, other = gradient(adapted, [heavy]), gradient(adapted, [twice])
    for name, grad in one.items():
        torch.testing.assert_close(grad * tokens, other[name] * more, atol=1e-5, rtol=1e-4)
    alone, plain = gradient(adapted, [heavy[:1]]), gradient(adapted, [group[:1]])
    for name, grad in alone.items():
        torch.testing.assert_close(grad, 2 * plain[name], atol=1e-6, rtol=1e-4)


def test_weights_of_rows_are_over_their_mean(rows: list[Row], loaded: LoadedModel) -> None:
    """Else all steps would be as much larger as the data set stands for."""
    some = [replace(row, weight=weight) for row, weight in zip(rows[:3], (2, 4, 6), strict=True)]
    tokenizer, end = loaded.tokenizer, loaded.end_token_id
    found = tokenise(some, tokenizer, Contract(), end, "train", weighted=True)
    assert [example.weight for example in found] == [0.5, 1.0, 1.5]
    assert make_pack(found[:1]).head_weights == (0.5,)


def test_a_reward_needs_a_model_that_reads_two_replies_after_one_prompt(
    data_set: Path, loaded: LoadedModel, tiny_model: Path
) -> None:
    chosen = settings(tiny_model, abstain_reward=0.5)
    with pytest.raises(UserError, match="two replies are read after one prompt"):
        read_material(data_set, loaded.tokenizer, loaded.end_token_id, None, chosen, False)


def test_the_longer_of_two_replies_has_to_fit(rows: list[Row], loaded: LoadedModel) -> None:
    row = next(row for row in rows if row.sufficient)
    phrase = Contract(abstention_phrase="the context that was given does not tell me that")
    tokenizer, end = loaded.tokenizer, loaded.end_token_id
    plain = make_example(row, tokenizer, phrase, end)
    offered = make_example(row, tokenizer, phrase, end, reward=0.5)
    assert len(offered) > len(plain)
    assert not too_long("train", [plain], len(plain), None)
    assert too_long("train", [offered], len(plain), None)


@torch.no_grad()
def log_p(model: Any, prompt: tuple[int, ...], reply: tuple[int, ...]) -> float:
    """By the plain road: one sequence."""
    tree, _ = branch_out([[*prompt, *reply]])
    start = len(prompt) - 1
    logits = forward(model, tree, range(start, start + len(reply))).logits
    return -float(torch.nn.functional.cross_entropy(logits, torch.tensor(reply), reduction="sum"))


def test_the_loss_is_the_logarithm_of_the_reward_to_be_expected(
    rows: list[Row], loaded: LoadedModel
) -> None:
    reward = 0.4
    group = examples(one_context(rows), loaded, reward)
    group[0] = replace(group[0], weight=3.0)
    slow = 0.0
    for example in group:
        earned = torch.tensor(log_p(loaded.model, example.prompt, example.answer)).exp()
        if example.sufficient:
            assert example.decline
            earned += (
                reward * torch.tensor(log_p(loaded.model, example.prompt, example.decline)).exp()
            )
        else:
            assert not example.decline  # there, declining is the answer
        slow -= example.weight * float(earned.log())
    with torch.no_grad():
        fast, _, _ = steps.pack_losses(loaded.model, None, make_pack(group, 64))
    assert float(fast) == pytest.approx(slow, rel=1e-3)


def test_packs_of_one_row_and_of_many_give_the_same(
    rows: list[Row], loaded: LoadedModel, adapted: Any
) -> None:
    every = examples(rows[:24], loaded, 0.5)
    together = gradient(adapted, pack_examples(every, 12, 4096))
    alone = gradient(adapted, [[example] for example in every])
    for name, grad in together.items():
        torch.testing.assert_close(grad, alone[name], atol=1e-5, rtol=1e-3)


def test_a_reward_for_declining_makes_it_decline_more(
    data_set: Path, tiny_model: Path, rows: list[Row], tmp_path: Path
) -> None:
    phrase = []
    for reward in (0.0, 0.9):
        run = tmp_path / str(reward)
        trainer.run(data_set, run, settings(tiny_model, abstain_reward=reward, epochs=4))
        model = load_model(str(run)).model
        some = [e for e in examples(rows[:40], load_model(str(run)), 0.9) if e.decline]
        phrase.append(sum(log_p(model, e.prompt, e.decline) for e in some) / len(some))
    assert phrase[1] > phrase[0] + 0.1


def test_weights_follow_what_the_untrained_model_does(
    rows: list[Row], loaded: LoadedModel, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    chosen = settings(tiny_model, refusal_aware=0.75)
    packs = pack_examples(examples(rows, loaded), 12, 4096)
    found = curriculum.refusal_aware(packs, rows, loaded, chosen, tmp_path)
    # A random model answers everything, and nothing rightly.
    weights = {example.row_id: example.answer_weight for pack in found for example in pack}
    assert weights == {row.id: 0.25 if row.sufficient else 1.75 for row in rows}
    # What says whether the context suffices is taught as before.
    assert make_pack(found[0]).head_weights == make_pack(packs[0]).head_weights
    assert "nearly all lose weight" in caplog.text
    # What it said is kept: a run that goes on does not ask again, unless the rows have changed.
    monkeypatch.setattr(curriculum, "answer_all", lambda *_: pytest.fail("asked again"))
    assert curriculum.refusal_aware(packs, rows, loaded, chosen, tmp_path) == found
    stored = json.loads((tmp_path / "asked.json").read_text())
    stored["found"] = dict.fromkeys(stored["found"], True)
    (tmp_path / "asked.json").write_text(json.dumps(stored))
    assert curriculum.refusal_aware(packs, rows, loaded, chosen, tmp_path) == packs


def test_the_command_takes_them_all(small_set: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run_command(
        "train", "run", "--data", small_set, "--out", tmp_path / "run", "--model", tiny_model,
        "--epochs", 1, "--refusal-aware", 1, "--abstain-reward", 0.3, "--row-weights",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "run/training.json").read_text())["settings"]
    chosen = [stored[name] for name in ("refusal_aware", "abstain_reward", "row_weights")]
    assert chosen == [1, 0.3, True]


def test_pairs_prefer_what_is_right_to_what_somebody_would_say(
    rows: list[Row], tiny_run: Path, tmp_path: Path
) -> None:
    answerer = load_answerer(str(tiny_run), calibrated=False)
    group = one_context(rows)
    parent = next(row for row in group if row.sufficient)
    child = replace(parent, id="child", sufficient=False, answers=[], answer_starts=[],
                    parent_id=parent.id, context="Nothing is known of it.")  # fmt: skip
    found = prefer.preferences([*group, child], answerer, tmp_path / "asked.json", "these")
    phrase = answerer.contract.abstention_phrase
    pairs = {pair.row_id: pair for pair in found.pairs}

    def told(row: Row) -> tuple[str, str]:
        """What is preferred to what; each ends as training and serving have it end."""
        pair, end = pairs[row.id], answerer.loaded.end_token_id
        assert pair.answer[-1] == pair.decline[-1] == end
        decode = answerer.loaded.tokenizer.decode
        return decode(pair.answer[:-1]), decode(pair.decline[:-1])

    assert told(parent) == (parent.answers[0], phrase)
    assert told(child) == (phrase, parent.answers[0])
    untold = [row for row in group if not row.sufficient]
    left_out = [name for names in found.dropped.values() for name in names]
    assert len(left_out) + len(found.pairs) == len(group) + 1
    for row in untold:
        if row.id not in left_out:
            assert told(row)[0] == phrase and not answerer.contract.is_abstention(told(row)[1])
    # An answer that is the phrase would be preferred to itself.
    same = replace(parent, id="same", answers=[phrase])
    again = prefer.preferences([same], answerer, tmp_path / "asked.json", "others")
    assert not again.pairs and again.dropped == {"both replies are the same": ["same"]}
    # Tokens are those that training and serving read.
    one = make_example(parent, answerer.loaded.tokenizer, answerer.contract,
                       answerer.loaded.end_token_id)  # fmt: skip
    assert pairs[parent.id].prompt == one.prompt and pairs[parent.id].answer == one.answer


def test_preferences_make_a_run_that_prefers_them(
    small_set: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "preferring"
    # What an earlier training has left there does not stay; its ledger does.
    out.mkdir()
    shutil.copyfile(tiny_run / "sufficiency_head.safetensors", out / "probe.safetensors")
    done = run_command(
        "train", "prefer", tiny_run, "--data", small_set, "--out", out,
        "--learning-rate", 1e-3, "--epochs", 2, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loss"][-1] < found["loss"][0] == pytest.approx(0.693, abs=0.01)

    def margin(run: Path) -> float:
        """By how much the answers of answerable rows are likelier than the phrase."""
        loaded = load_model(str(run))
        some = [e for e in examples(read_fold(small_set, "train"), loaded, 0.5) if e.decline][:20]
        return sum(
            log_p(loaded.model, e.prompt, e.answer) - log_p(loaded.model, e.prompt, e.decline)
            for e in some
        )

    assert margin(out) > margin(tiny_run) + 1
    # A run like any other: one adapter, its head, no calibration, and the rest works on it.
    assert set(load_file(out / "adapter_model.safetensors")) == set(
        load_file(tiny_run / "adapter_model.safetensors")
    )
    assert json.loads((out / "abstain.json").read_text())["calibration"] is None
    assert (out / "sufficiency_head.safetensors").exists() and not (out / "ref").exists()
    assert load_answerer(str(out)).head is not None
    assert not (out / "probe.safetensors").exists()
    training = [json.loads((run / "training.json").read_text()) for run in (tiny_run, out)]
    assert training[0]["fingerprint"] != training[1]["fingerprint"]
    assert training[1]["forgetting"] is None


def test_preferences_go_on_where_they_were_interrupted(
    small_set: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    monkeypatch.setattr(prefer, "_EVERY", 2)
    settings_ = prefer.PreferSettings(learning_rate=1e-3, batch=2, accumulate=2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    prefer.prefer(tiny_run, small_set, whole, settings_)
    step, calls = Trainer.training_step, 0

    def counting(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:  # in the fourth step
            raise KeyboardInterrupt
        return step(self, *arguments, **more)

    monkeypatch.setattr(Trainer, "training_step", counting)
    with pytest.raises(KeyboardInterrupt):
        prefer.prefer(tiny_run, small_set, stopped, settings_)
    monkeypatch.setattr(prefer, "answer_all", None)  # what was asked is kept
    found = prefer.prefer(tiny_run, small_set, stopped, settings_)
    steps_ = len(json.loads((whole / "training.json").read_text())["preferences"]["loss"])
    assert len(found["loss"]) == steps_ and calls - 7 == (steps_ - 2) * 2
    tensors = [load_file(run / "adapter_model.safetensors") for run in (whole, stopped)]
    for name, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][name], atol=1e-5), name
    assert not list(stopped.glob("trl-*"))
    # Finished, it is not trained again.
    assert prefer.prefer(tiny_run, small_set, stopped, settings_)["loss"] == found["loss"]
    assert calls - 7 == (steps_ - 2) * 2


def test_preferences_refuse_what_they_cannot_train(
    data_set: Path, tiny_model: Path, tiny_run: Path, tmp_path: Path
) -> None:
    trainer.run(data_set, tmp_path / "run", settings(tiny_model, method="bitfit", epochs=0.5))
    for run, out, told in (
        (tmp_path / "run", tmp_path / "out", "lora, rslora or dora"),
        (tiny_run, tiny_run, "is the run itself"),
        (tiny_model, tmp_path / "out", "has no adapter_config"),
    ):
        with pytest.raises(UserError, match=told):
            prefer.prefer(run, data_set, out, prefer.PreferSettings())
    # A base in few bits would have its adapter rounded; a prompt that does not fit is left out.
    training = json.loads((tiny_run / "training.json").read_text())
    for name, value, told in (
        ("base_bits", 4, "kept in 4 bits"),
        ("virtual_tokens", 5000, "no row of its train split"),
    ):
        changed_run = tmp_path / name
        shutil.copytree(tiny_run, changed_run)
        method = {"method": "prefix"} if name == "virtual_tokens" else {}
        stored = {**training, "settings": {**training["settings"], name: value, **method}}
        (changed_run / "training.json").write_text(json.dumps(stored))
        with pytest.raises(UserError, match=told):
            prefer.prefer(changed_run, data_set, tmp_path / "out", prefer.PreferSettings())
