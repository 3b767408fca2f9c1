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
from abstain.model import device, quiet_peft, window
from abstain.predict import answer_all
from abstain.run import CONFIG
from curate.console import say
from curate.errors import UserError
from curate.files import read_json, writable_folder, write_json
from curate.record import Row, digest, read_fold, rows_digest
from train import out_of_memory, run_folder
from train.collate import Example, make_example
from train.kept import kept
from train.material import room
from train.memory import limit_kernel_cache, peak_memory
from train.run_folder import TRAINING
from train.settings import TrainSettings

REPLIES = "replies.json"  # what the run answers, kept so that a killed training asks nothing again
_EVERY = 20  # steps between checkpoints

_TOO_LONG = "the longer of both replies exceeds the model's window"
_ALIKE = "both replies are the same"
_UNTOLD = "its context does not suffice, its parent has no answer, and the run declines it already"


@dataclass(frozen=True)
class Preferences:
    """Pairs of replies, and the rows that gave none, by why."""

    # The reply to prefer is the answer, the other one stands as what may be said instead.
    pairs: list[Example] = field(default_factory=list)
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


def preferences(rows: Sequence[Row], answerer: Answerer, kept_at: Path, of: str) -> Preferences:
    """A pair for every row that gives one; the run is asked only what nothing else tells.

    What it answers is kept in a file; ``of`` names the run and the rows.
    """
    contract, tokenizer = answerer.contract, answerer.loaded.tokenizer
    end = answerer.loaded.end_token_id
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

    def ask() -> dict[str, str | None]:
        answers = answer_all(answerer, untold, "ask the run") if untold else []
        said = (None if answer.abstained else answer.text for answer in answers)
        return {row.id: text for row, text in zip(untold, said, strict=True)}

    for row_id, text in kept(kept_at, of, ask).items():
        if text is None:
            found.dropped.setdefault(_UNTOLD, []).append(row_id)
        else:
            rejected[row_id] = text
    for row in rows:
        if row.id not in rejected:
            continue
        pair = make_example(row, tokenizer, contract, end, instead=rejected[row.id])
        if pair.answer == pair.decline:
            found.dropped.setdefault(_ALIKE, []).append(row.id)
        else:
            found.pairs.append(pair)
    return found


def _that_fit(found: Preferences, bound: int | None) -> Preferences:
    """Without pairs that the model's window does not hold."""
    fitting = [pair for pair in found.pairs if bound is None or len(pair) <= bound]
    long = [pair.row_id for pair in found.pairs if bound is not None and len(pair) > bound]
    dropped = {**found.dropped, **({_TOO_LONG: long} if long else {})}
    return Preferences(fitting, dropped)


def prefer(
    run: Path, data: Path, out: Path, settings: PreferSettings, fresh: bool = False
) -> dict[str, Any]:
    """Train a copy of ``run`` on preferences drawn from ``data`` and write it to ``out``.

    Killed and started again with the same arguments, it goes on from its last checkpoint.
    Raises `UserError` for a run without LoRA, since TRL keeps a copy of the adapter to compare
    with, for a base in few bits, and where no row gives a pair.
    """
    if out.resolve() == run.resolve():
        raise UserError(f"{out}: is the run itself; give another folder")
    if not (run / CONFIG).exists():
        raise UserError(f"{run}: has no {CONFIG}; it is not a run of `train run`")
    kind = read_json(run / CONFIG).get("peft_type")
    if kind != "LORA":
        raise UserError(f"{run}: preferences are for runs of lora, rslora or dora, not {kind}")
    classes = _trl()
    training = read_json(run / TRAINING)
    before = TrainSettings.model_validate(training["settings"])
    if before.base_bits is not None:
        raise UserError(
            f"{run}: its base is kept in {before.base_bits} bits, beside which TRL would round the "
            "adapter to bfloat16; train the run without --base-bits"
        )
    writable_folder(out)
    rows = read_fold(data, "train")
    fingerprint = digest(training["fingerprint"], repr(settings), rows_digest(rows))
    if fresh:
        _discard(out)
    elif (out / TRAINING).exists():
        done = read_json(out / TRAINING)
        if done["fingerprint"] == fingerprint:
            say(f"{out}: already trained on these preferences (--fresh to redo)")
            return dict(done["preferences"])
    limit_kernel_cache()
    with out_of_memory.explained(before, ()):
        answerer = load_answerer(str(run), calibrated=False)
        pairs = preferences(rows, answerer, out / REPLIES, fingerprint)
        found = _that_fit(pairs, room(window(answerer.loaded.model.config), before))
        if not found.pairs:
            raise UserError(f"{data}: no row of its train split gives a pair to prefer a reply in")
        seconds, losses = _train(classes, answerer, found, settings, out, fingerprint)
    value = {
        "pairs": len(found.pairs),
        "dropped": {why: len(ids) for why, ids in found.dropped.items()},
        "seconds": seconds,
        "peak_memory_gib": peak_memory(),
        "loss": losses,
        "settings": vars(settings),
        "from": str(run),
    }
    training |= {
        "fingerprint": fingerprint,
        "forgetting": None,  # that of the run before
        "preferences": value,
    }
    write_json(out / "dropped.json", found.dropped)
    loaded = answerer.loaded
    run_folder.write(
        out, loaded.base, loaded.model, answerer.head, answerer.contract, training,
        before.base_bits, selected_adapters=["default"],
    )  # fmt: skip
    return value


def _discard(out: Path) -> None:
    """Remove TRL's checkpoints."""
    for left in out.glob("trl-*"):
        shutil.rmtree(left)


def _trl() -> tuple[Any, Any]:
    """TRL's configuration and trainer; `UserError` where it is not installed."""
    try:
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer
    except ImportError as error:
        raise UserError("preferences need TRL: pip install 'grounded-abstain[prefer]'") from error

    class Trainer(DPOTrainer):
        """On tokens as they were in training and will be in serving.

        TRL would tokenise prompt and reply as one text, with special tokens of its own, and drop a
        prompt that is too long.
        """

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return DPOConfig, Trainer


def _train(
    classes: tuple[Any, Any],
    answerer: Answerer,
    found: Preferences,
    settings: PreferSettings,
    out: Path,
    fingerprint: str,
) -> tuple[float, list[float]]:
    """Seconds, since the last start, and the loss of each step that TRL tells of."""
    from datasets import Dataset

    make_config, make_trainer = classes
    # Named by what it is about: checkpoints of other settings are no beginning of this.
    work = out / f"trl-{fingerprint[:12]}"
    checkpoints = list(work.glob("checkpoint-*/trainer_state.json"))
    model = answerer.loaded.model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    config = make_config(
        output_dir=str(work),
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=device().type == "cpu",
        report_to="none",
        save_strategy="steps",
        save_steps=_EVERY,
        save_total_limit=1,
        logging_steps=1,
        seed=settings.seed,
    )
    # What TRL prints of its progress is not the command's result.
    with quiet_peft(), contextlib.redirect_stdout(sys.stderr):
        trainer = make_trainer(
            model,
            args=config,
            processing_class=answerer.loaded.tokenizer,
            train_dataset=Dataset.from_list(
                [
                    {"prompt_ids": p.prompt, "chosen_ids": p.answer, "rejected_ids": p.decline}
                    for p in found.pairs
                ]
            ),
        )
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=bool(checkpoints))
    _discard(out)
    told = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return time.perf_counter() - started, told
