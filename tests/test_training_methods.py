"""Every way of fine-tuning: it learns, is saved and loaded alone, and the rest works on it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command
from safetensors.torch import load_file

from abstain.answerer import Answerer
from abstain.blocks import decoder
from abstain.evidence import DropoutSettings, Evidence
from abstain.model import LoadedModel, load_model
from abstain.prefix import branch_out, forward, supports_packing
from curate.contract import Contract
from curate.errors import UserError
from curate.record import read_fold
from train import steps, trainer
from train.collate import make_example
from train.methods import METHODS, Name, wrap
from train.settings import TrainSettings

FUSED = "adapterfusion"
ALONE: list[Name] = [name for name in METHODS if name != FUSED]
# Larger than the defaults, so that a few steps on a small random model show.
RATES: dict[Name, float] = {"low-lr": 5e-5, "prompt": 0.1, "adalora": 2e-2}
TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def settings(model: Path, method: Name, **given: Any) -> TrainSettings:
    values = {
        "rank": 4, "learning_rate": RATES.get(method, 5e-3), "epochs": 4, "density": 0.05,
        "bottleneck": 8, "virtual_tokens": 4, "top_layers": 2, "bfloat16": "off", "patience": 99,
    }  # fmt: skip
    return TrainSettings(model=str(model), method=method, **{**values, **given})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def trained(
    data_set: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Name], Path]:
    """A run of each method, trained once."""
    runs: dict[Name, Path] = {}

    def get(method: Name) -> Path:
        if method not in runs:
            fuse = []
            if method == FUSED:
                fuse = [str(get("bottleneck")), str(get("bottleneck"))]
            run = tmp_path_factory.mktemp(method) / "run"
            trainer.run(data_set, run, settings(tiny_model, method, fuse=fuse))
            runs[method] = run
        return runs[method]

    return get


@torch.no_grad()
def logits(loaded: LoadedModel) -> torch.Tensor:
    tree, _ = branch_out([TOKENS[0].tolist()])
    return forward(loaded.model, tree, range(TOKENS.shape[1])).logits


@pytest.mark.parametrize("method", [*ALONE, FUSED])
def test_it_learns_and_its_folder_alone_answers_alike(
    trained: Callable[[Name], Path], tiny_model: Path, method: Name
) -> None:
    run = trained(method)
    training = json.loads((run / "training.json").read_text())
    history = training["progress"]["history"]
    least = 1e-4 if method == "low-lr" else 0.02
    assert history[-1]["answer"] < history[0]["answer"] * (1 - least)
    loaded, again = load_model(str(run)), load_model(str(run))
    found = logits(loaded)
    assert torch.equal(found, logits(again))
    assert (found - logits(load_model(str(tiny_model)))).abs().max() > 1e-6
    # What was best in training is what was stored: the losses on the validation rows tell.
    best = torch.load(run / "checkpoint/best.pt", weights_only=True)
    assert sum(v.numel() for k, v in best.items() if k.startswith("0.")) > 0
    validation = min(
        (e for e in training["progress"]["evaluations"]
         if e["step"] >= training["progress"]["best_from"]),
        key=lambda e: e["total"],
    )  # fmt: skip
    assert stored_loss(run, Path(training["data"])) == pytest.approx(validation["answer"], rel=1e-4)


def stored_loss(run: Path, data: Path) -> float:
    """The validation loss of what a run stores, by the plain road: one row a pass."""
    loaded = load_model(str(run))
    total = tokens = 0.0
    for row in read_fold(data, "validation"):
        example = make_example(row, loaded.tokenizer, Contract(), loaded.end_token_id)
        tree, _ = branch_out([[*example.prompt, *example.answer]])
        start = len(example.prompt) - 1
        with torch.no_grad():
            output = forward(loaded.model, tree, range(start, start + len(example.answer)))
        loss = torch.nn.functional.cross_entropy(
            output.logits, torch.tensor(example.answer), reduction="sum"
        )
        total += float(loss)
        tokens += len(example.answer)
    return total / tokens


@pytest.mark.parametrize("method", [*ALONE, FUSED])
def test_packed_is_row_by_row_and_off_is_the_base(
    trained: Callable[[Name], Path], tiny_model: Path, method: Name
) -> None:
    loaded = load_model(str(trained(method)))
    assert supports_packing(loaded.model)
    if method in ("prefix", "prompt", "p-tuning"):
        return  # these do not change the model: without them it is not asked through PEFT
    plain = logits(load_model(str(tiny_model)))
    assert not torch.allclose(logits(loaded), plain, atol=1e-6)
    with loaded.model.disable_adapter():
        assert torch.allclose(logits(loaded), plain, atol=1e-6)
    assert not torch.allclose(logits(loaded), plain, atol=1e-6)


@pytest.mark.parametrize("method", ["prefix", "prompt", "p-tuning"])
def test_virtual_tokens_are_what_peft_makes_of_them(
    trained: Callable[[Name], Path], method: Name
) -> None:
    loaded = load_model(str(trained(method)))
    with torch.no_grad():
        reference = loaded.model(TOKENS).logits[0, -TOKENS.shape[1] :]
    assert torch.allclose(logits(loaded), reference, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "bottleneck", "full"])
def test_answers_are_the_same_with_and_without_a_shared_prefix(
    trained: Callable[[Name], Path], data_set: Path, method: Name
) -> None:
    loaded = load_model(str(trained(method)))
    rows = read_fold(data_set, "test")[:8]
    answerer = Answerer(loaded, Contract(), None)
    packs = list(answerer.answer(rows, 12))
    together = [a for pack in packs for _, a in pack]  # in the order of the rows
    alone = [next(answerer.answer([row], 12))[0][1] for row in rows]
    for packed, single in zip(together, alone, strict=True):
        assert packed.text == single.text
        assert packed.log_p_abstain == pytest.approx(single.log_p_abstain, abs=1e-4)


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if m.dropout])
def test_mc_dropout_scatters_where_there_is_dropout(
    trained: Callable[[Name], Path], data_set: Path, method: Name
) -> None:
    answerer = Answerer(load_model(str(trained(method))), Contract(), None)
    answerer.gather(Evidence(dropout=DropoutSettings(samples=4, top_k=2)))
    found = next(answerer.answer(read_fold(data_set, "test")[:1], 12))[0][1].dropout
    assert found is not None and len(set(found.log_likelihood)) == 4


@pytest.mark.parametrize("method", ["ia3", "prefix", "full"])
def test_where_there_is_no_dropout_mc_dropout_says_so(
    trained: Callable[[Name], Path], data_set: Path, method: Name
) -> None:
    done = run_command(
        "abstain",
        "calibrate",
        trained(method),
        "--data",
        data_set,
        "--target-risk",
        0.5,
        "--signals",
        "mc_std_log_likelihood",
    )
    assert done.returncode == 1
    assert "MC dropout needs a run with an adapter that has dropout" in done.stderr


def test_the_difference_of_diffpruning_is_as_sparse_as_asked(
    trained: Callable[[Name], Path], tiny_model: Path
) -> None:
    tensors = load_file(trained("diffpruning") / "adapter_model.safetensors")
    changed = sum(len(v) for k, v in tensors.items() if k.endswith(".at"))
    base = load_model(str(tiny_model)).model
    linear = sum(m.weight.numel() for block in decoder(base).layers for m in block.modules()
                 if isinstance(m, torch.nn.Linear))  # fmt: skip
    assert 0.04 * linear < changed <= 0.051 * linear


def test_hard_concrete_gates_are_those_of_their_definition() -> None:
    """Shut, open and expected gates against Louizos et al. 2018, equations 10 to 12, by drawing."""
    from train.methods.diffpruning import HIGH, LOW, SPEED, Gated

    torch.manual_seed(0)
    gated = Gated(torch.zeros(200_000))
    odds = 0.7
    torch.nn.init.constant_(gated.gate, odds / SPEED)
    drawn = gated.gates()
    u = torch.rand(200_000, dtype=torch.float64)
    reference = ((torch.log(u / (1 - u)) + odds).sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)
    for share in (lambda z: z == 0, lambda z: z == 1, lambda z: z):
        assert float(share(drawn).double().mean()) == pytest.approx(
            float(share(reference).double().mean()), abs=0.005
        )
    # With bounds of equal size, P(z > 0) is the odds' sigmoid.
    assert float((drawn > 0).double().mean()) == pytest.approx(
        float(gated.open() / 200_000), abs=0.005
    )


def test_adalora_ends_with_the_ranks_it_was_given(trained: Callable[[Name], Path]) -> None:
    config = json.loads((trained("adalora") / "adapter_config.json").read_text())
    kept = sum(map(sum, config["rank_pattern"].values()))
    layers = len(config["rank_pattern"])
    assert 4 * layers * 0.9 <= kept <= 4 * layers


@pytest.mark.parametrize("method", ["adalora", "diffpruning", "prefix"])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    data_set: Path, tiny_model: Path, tmp_path: Path, method: Name, monkeypatch: Any
) -> None:
    given = settings(tiny_model, method, epochs=2, checkpoint_every=1)
    trainer.run(data_set, tmp_path / "whole", given)
    backward, calls = steps.backward, 0

    def cut_off(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return backward(*arguments)

    monkeypatch.setattr(steps, "backward", cut_off)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(data_set, tmp_path / "cut", given)
    monkeypatch.setattr(steps, "backward", backward)
    trainer.run(data_set, tmp_path / "cut", given)
    stored = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut")]
    assert stored[0].keys() == stored[1].keys()
    assert all(torch.equal(stored[0][name], stored[1][name]) for name in stored[0])


def test_adalora_stores_weights_whose_ranks_were_final(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """A rate that does harm: the best weights come early, before ranks are allocated for good."""
    given = settings(tiny_model, "adalora", learning_rate=0.3, epochs=3, evaluations=10)
    progress = trainer.run(data_set, tmp_path, given)
    best = progress.best()
    earliest = min(progress.evaluations, key=lambda e: e["total"])
    assert best is not None and best["step"] >= progress.best_from > 0
    assert earliest["step"] < progress.best_from, "the test needs an early best"
    assert stored_loss(tmp_path, data_set) == pytest.approx(best["answer"], rel=1e-4)


@pytest.fixture(scope="session")
def half_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as most are published: in bfloat16."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("half")
    AutoModelForCausalLM.from_pretrained(tiny_model).bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("bfloat16", ["off", "on"])
@pytest.mark.parametrize(
    "method", ["lora", "bitfit", *(name for name in ALONE if METHODS[name].float32)]
)
def test_a_base_in_half_precision_is_trained_in_all_its_numbers(
    data_set: Path, half_model: Path, tmp_path: Path, method: Name, bfloat16: Any
) -> None:
    rate = METHODS[method].rate  # small steps, which half precision would round away
    given = settings(half_model, method, learning_rate=rate, epochs=0.5, bfloat16=bfloat16)
    torch.manual_seed(given.seed)
    before = wrap(load_model(str(half_model)).model, given, 10).model
    start = {n: p.detach().clone() for n, p in before.named_parameters() if p.requires_grad}
    trainer.run(data_set, tmp_path, given)
    best = torch.load(tmp_path / "checkpoint/best.pt", weights_only=True)
    moved = sum(int((best[f"0.{n}"] != p).sum()) for n, p in start.items() if "gate" not in n)
    assert moved > 0.4 * sum(p.numel() for n, p in start.items() if "gate" not in n)
    answerer = Answerer(load_model(str(tmp_path)), Contract(), None)
    assert next(answerer.answer(read_fold(data_set, "test")[:2], 4))


def test_virtual_tokens_take_room_in_the_window(
    trained: Callable[[Name], Path], data_set: Path
) -> None:
    row = read_fold(data_set, "test")[0]
    plain, virtual = (
        Answerer(load_model(str(trained(name))), Contract(), None) for name in ("lora", "prefix")
    )
    # As long as 1,024 positions allow, with 64 for an answer: four virtual tokens are too many.
    for count in range(240, 0, -1):
        row.context = "The gate stands. " * count
        try:
            tokens = plain.check(row)
            break
        except UserError:
            continue
    assert 956 < tokens <= 960
    with pytest.raises(UserError, match="reads at most 1,020"):
        virtual.check(row)


@pytest.mark.parametrize("method", ["bottleneck", "ia3", "selective", "sparse", "bitfit"])
def test_an_architecture_that_a_method_cannot_take_is_named(method: Name) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=64))
    with pytest.raises(UserError, match="GPT2LMHeadModel"):
        wrap(model, settings(Path("gpt2"), method), 10)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("adapterfusion", {}, "give --fuse RUN twice or more"),
        ("selective", {"top_layers": 9}, "has 4 blocks"),
        ("sparse", {"rank": 16}, "at most 10"),
    ],
)
def test_what_cannot_be_trained_is_said(
    tiny_model: Path, method: Name, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        wrap(load_model(str(tiny_model)).model, settings(tiny_model, method, **given), 10)


def test_a_rate_that_makes_it_another_method_is_refused(data_set: Path, tmp_path: Path) -> None:
    done = run_command("train", "run", "--data", data_set, "--out", tmp_path,
                       "--method", "low-lr", "--learning-rate", 1e-3)  # fmt: skip
    assert done.returncode == 1
    assert "1e-5 to 5e-5" in done.stderr and "Traceback" not in done.stderr


def test_help_lists_every_method() -> None:
    text = run_command("train", "run", "--help").stdout
    for name in METHODS:
        assert re.search(rf"^[ *]+ {name} ", text, re.MULTILINE), name
