"""`train prefer`: what a trained run should say, preferred to what it should not (DPO).

Fine-tuning raises the likelihood of the right reply; direct preference optimisation (Rafailov et
al. 2023) also lowers that of the wrong one, relative to the run as it was. Where a context
suffices, the answer is preferred to the abstention phrase; where it does not, the phrase to an
answer: the one that the row's parent has, else what the run answers. TRL does the training.
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abstain.answerer import Answerer, load_answerer
from abstain.head import FILE as HEAD_FILE
from abstain.model import device, quiet_peft
from abstain.predict import answer_all
from abstain.run import RunFile, read_run_file, write_card
from curate.contract import Contract
from curate.errors import UserError
from curate.files import read_json, writable_folder, write_json
from curate.record import Row, read_fold
from train.material import room
from train.memory import limit_kernel_cache, peak_memory
from train.settings import TrainSettings

_UNTOLD = "its context does not suffice, its parent has no answer, and the run declines it already"


@dataclass(frozen=True)
class Preferences:
    """Pairs of replies, and the rows that gave none, by why."""

    pairs: list[dict[str, str]] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)  # reason → row ids


@dataclass(frozen=True)
class PreferSettings:
    """How strongly and how long."""

    beta: float = 0.1  # how dear it is to leave the run as it was (Rafailov et al.: 0.1 to 0.5)
    learning_rate: float = 5e-6  # TRL's and Zephyr's: preferences move a model far
    epochs: float = 1.0
    batch: int = 4
    accumulate: int = 3  # batches behind one step
    seed: int = 13


def preferences(rows: Sequence[Row], answerer: Answerer) -> Preferences:
    """A pair for every row that gives one; the run is asked only what nothing else tells."""
    contract, tokenizer = answerer.contract, answerer.loaded.tokenizer
    by_id = {row.id: row for row in rows}
    found = Preferences()
    rejected: dict[str, str] = {}
    untold = []
    for row in rows:
        parent = by_id.get(row.parent_id)
        if row.sufficient:
            rejected[row.id] = contract.abstention_phrase
        elif parent is not None and parent.answers:
            rejected[row.id] = parent.answers[0]
        else:
            untold.append(row)
    answers = answer_all(answerer, untold, "ask the run") if untold else []
    for row, answer in zip(untold, answers, strict=True):
        if answer.abstained:
            found.dropped.setdefault(_UNTOLD, []).append(row.id)
        else:
            rejected[row.id] = answer.text
    for row in rows:
        if row.id in rejected:
            prompt = contract.prompt(tokenizer, row.context, row.question, row.history)
            chosen = contract.target(row.answers, bool(row.sufficient))
            found.pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected[row.id]})
    return found


def prefer(run: Path, data: Path, out: Path, settings: PreferSettings) -> dict[str, Any]:
    """Train a copy of ``run`` on preferences drawn from ``data`` and write it to ``out``.

    Raises `UserError` for a run without LoRA, since TRL keeps a copy of the adapter to compare
    with, and where no row gives a pair.
    """
    if out.resolve() == run.resolve():
        raise UserError(f"{out}: is the run itself; give another folder")
    kind = read_json(run / "adapter_config.json").get("peft_type")
    if kind != "LORA":
        raise UserError(f"{run}: preferences are for runs of lora, rslora or dora, not {kind}")
    writable_folder(out)
    limit_kernel_cache()
    answerer = load_answerer(str(run), calibrated=False)
    rows = read_fold(data, "train")
    found = preferences(rows, answerer)
    if not found.pairs:
        raise UserError(f"{data}: no row of its train split gives a pair to prefer one reply in")
    training = read_json(run / "training.json")
    seconds, losses = _train(answerer, found, settings, training, out)
    value = {
        "pairs": len(found.pairs),
        "dropped": {why: len(ids) for why, ids in found.dropped.items()},
        "seconds": seconds,
        "peak_memory_gib": peak_memory(),
        "loss": losses,
        "settings": vars(settings),
        "from": str(run),
    }
    _write(run, out, answerer, {**training, "preferences": value})
    write_json(out / "dropped.json", found.dropped)
    return value


def _train(
    answerer: Answerer,
    found: Preferences,
    settings: PreferSettings,
    training: dict[str, Any],
    out: Path,
) -> tuple[float, list[float]]:
    """Seconds, and the loss of each step that TRL tells of."""
    try:
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer
    except ImportError as error:
        raise UserError("preferences need TRL: pip install 'grounded-abstain[prefer]'") from error
    from datasets import Dataset

    model = answerer.loaded.model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    before = TrainSettings.model_validate(training["settings"])
    config = DPOConfig(
        output_dir=str(out / "trl"),
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        max_length=room(before.max_tokens, before),
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=device().type == "cpu",
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        seed=settings.seed,
    )
    # What TRL prints of its progress is not the command's result.
    with quiet_peft(), contextlib.redirect_stdout(sys.stderr):
        trainer = DPOTrainer(
            model,
            args=config,
            processing_class=answerer.loaded.tokenizer,
            train_dataset=Dataset.from_list(found.pairs),
        )
        started = time.perf_counter()
        trainer.train()
    shutil.rmtree(out / "trl", ignore_errors=True)
    told = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return time.perf_counter() - started, told


def _write(run: Path, out: Path, answerer: Answerer, training: dict[str, Any]) -> None:
    """A run's folder like any other: the head goes along, a calibration does not."""
    with quiet_peft():
        answerer.loaded.model.save_pretrained(out, selected_adapters=["default"])
    if (run / HEAD_FILE).exists():
        shutil.copyfile(run / HEAD_FILE, out / HEAD_FILE)
    contract: Contract = read_run_file(run).contract
    RunFile(contract).write(out)
    write_card(out, answerer.loaded.base, training)
    write_json(out / "training.json", training)
