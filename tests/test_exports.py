"""Exports, each read back by the program that it is for."""

import json
from pathlib import Path

import pytest
from curate_helpers import curate, make_row, splits

from curate import exports
from curate.contract import Contract
from curate.errors import UserError
from curate.sources import squad


def test_squad_is_read_back_with_the_same_rows(data_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.json"
    done = curate("export", data_set, "--format", "squad", "--split", "train", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = splits(data_set)["train"]
    read = {row.source_id: row for row in squad.read(str(out), "again")}
    assert len(read) == len(rows)
    for row in rows:
        again = read[row.id]
        assert (again.question, again.context) == (row.question, row.context)
        assert (again.answers, again.answer_starts) == (row.answers, row.answer_starts)
        assert again.sufficient == row.sufficient


def test_what_is_no_span_cannot_be_told_in_squads_format(tmp_path: Path) -> None:
    row = make_row("Is it?", "It is.", ["yes"], answer_starts=[-1])
    with pytest.raises(UserError, match=f"row {row.id}: its answer 'yes' is no span"):
        exports.export([row], "squad", tmp_path / "x.json", Contract())
    assert not (tmp_path / "x.json").exists()
    told = make_row("Is it?", "It is.", ["is"])
    talk = make_row("And now?", "It is.", ["is"], history=[{"role": "user", "content": "Hi"}])
    contract = Contract()
    assert exports.export([row, told, talk], "squad", tmp_path / "x.json", contract, True) == 1
    assert [each.source_id for each in squad.read(str(tmp_path / "x.json"), "x")] == [told.id]


@pytest.mark.parametrize("form", ["messages", "prompt-completion"])
def test_trl_tokenises_what_train_would_teach(
    form: str, data_set: Path, tmp_path: Path, tiny_model: Path
) -> None:
    """TRL's trainer, on our export: it must see our prompt, our answer, and the end token."""
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    out = tmp_path / "train.jsonl"
    done = curate("export", data_set, "--format", form, "--split", "train", "--out", out)
    assert done.returncode == 0, done.stderr
    data = load_dataset("json", data_files=str(out), split="train", cache_dir=str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = SFTConfig(
        output_dir=str(tmp_path / "out"),
        report_to="none",
        use_cpu=True,
        bf16=False,
        max_length=None,
    )
    trainer = SFTTrainer(str(tiny_model), config, train_dataset=data, processing_class=tokenizer)
    contract, rows = Contract(), {row.id: row for row in splits(data_set)["train"]}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == len(trainer.train_dataset) == len(rows)
    for line, example in zip(lines, trainer.train_dataset, strict=True):
        row = rows[line["id"]]
        prompt = contract.prompt(tokenizer, row.context, row.question)
        target = contract.target(row.answers, bool(row.sufficient)) + tokenizer.eos_token
        assert tokenizer.decode(example["input_ids"]).startswith(prompt + target)
