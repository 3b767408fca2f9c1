"""The training loop, to be read from top to bottom."""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm

from abstain.head import FILE as HEAD_FILE
from abstain.head import SufficiencyHead, middle_layers
from abstain.model import LoadedModel, load_model, quiet_peft, window
from abstain.prefix import supports_packing
from abstain.run import CALIBRATION_FILES, RunFile, ledger_of, write_card
from curate.contract import Contract
from curate.errors import UserError
from curate.files import writable_folder, write_json
from curate.record import Row, digest, read_fold
from train import checkpoint, out_of_memory, parallel, precision, steps
from train.checkpoint import Progress
from train.collate import Example, pack_examples, tokenise, too_long
from train.forgetting import Forgetting, abilities
from train.memory import limit_kernel_cache, peak_memory, release_memory
from train.methods import METHODS, wrap
from train.methods.average import average
from train.methods.wrapped import Wrapped
from train.rehearsal import rehearsal
from train.settings import TrainSettings

log = logging.getLogger(__name__)


@dataclass
class Material:
    """The train and validation splits as packs of tokenised examples."""

    train: list[list[Example]]
    validation: list[list[Example]]
    rows: int
    fingerprint: str


def read_material(
    data: Path, loaded: LoadedModel, settings: TrainSettings, packing: bool
) -> Material:
    """Tokenise and pack; a row that does not fit is an error."""
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    packs: dict[str, list[list[Example]]] = {}
    rows: list[Row] = []
    for fold in ("train", "validation"):
        fold_rows = read_fold(data, fold)
        rows += fold_rows
        examples = tokenise(fold_rows, loaded.tokenizer, contract, loaded.end_token_id, fold)
        if errors := too_long(fold, examples, settings.max_tokens, window(loaded.model.config)):
            raise UserError("\n".join(errors))
        max_rows = settings.max_rows if packing else 1
        packs[fold] = pack_examples(examples, max_rows, settings.max_tokens)
    if not packs["train"]:
        raise UserError(f"{data}: its train split has no rows")
    texts = digest(*(row.id + row.content_hash for row in rows))
    return Material(
        packs["train"],
        packs["validation"],
        sum(map(len, packs["train"])),
        digest(texts, settings.model_dump_json(), str(settings.rate)),
    )


def run(data: Path, out: Path, settings: TrainSettings, fresh: bool = False) -> Progress:
    """Fine-tune ``settings.model`` on the data set in ``data`` and write the run to ``out``.

    Killed at any moment and started again with the same arguments, it goes on from its last
    checkpoint and ends with the same weights as an uninterrupted run.
    """
    parallel.start()
    if fresh and parallel.rank() == 0:
        for name in (checkpoint.LAST, checkpoint.BEST):
            (out / checkpoint.FOLDER / name).unlink(missing_ok=True)
    writable_folder(out)
    parallel.wait()
    limit_kernel_cache()
    torch.manual_seed(settings.seed)
    loaded = load_model(settings.model)
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    packing = supports_packing(loaded.model) and _context_first(loaded, contract)
    material = read_material(data, loaded, settings, packing)
    if not fresh and _is_finished(out, material.fingerprint):
        tqdm.write(f"{out}: already trained with these settings on these data (--fresh to redo)")
        return Progress(**json.loads((out / "training.json").read_text())["progress"])
    packs = [*material.train, *_rehearsed(loaded, material.rows, settings)]
    plan = steps.plan(packs, settings.rows_per_step, settings.seed, settings.epochs)
    limited = settings.forgetting_limit is not None
    before = abilities(loaded, contract) if limited else None
    wrapped = wrap(loaded.model, settings, len(plan))
    wrapped.model.train()
    head = make_head(wrapped.model, settings)
    if parallel.processes() > 1:  # everybody's weights are alike by now, his dropout is his own
        torch.manual_seed(settings.seed + parallel.rank())
    try:
        progress = _train(wrapped, head, plan, material, settings, out)
    except RuntimeError as error:
        if not out_of_memory.is_one(error):
            raise
        raise UserError(out_of_memory.advice(settings, material.train)) from error
    if settings.average < 1:
        average(wrapped.model, settings)
    forgot = None
    if before is not None:
        trained = LoadedModel(wrapped.model.eval(), loaded.tokenizer, loaded.base)
        forgot = Forgetting(before, abilities(trained, contract))
    if parallel.rank() == 0:
        _write_run(out, data, loaded, wrapped.model, head, material, settings, progress, forgot)
    parallel.wait()
    if forgot is not None and forgot.lost > (settings.forgetting_limit or 0):
        raise UserError(
            f"{out}: trained and written, but plain text costs {forgot.lost:+.1%} bits a byte, "
            f"above the limit of {settings.forgetting_limit:.1%}\n  less is forgotten with "
            "--replay 0.2, a lower --rank or --learning-rate, or --average 0.7"
        )
    return progress


def _context_first(loaded: LoadedModel, contract: Contract) -> bool:
    """Whether there is a prefix to share; where there is none, that is said."""
    found = contract.context_first(loaded.tokenizer)
    if not found:
        log.warning(
            "the chat template of %s does not put the context before the question: rows share no "
            "prefix, and each is read alone (slower, same results)",
            loaded.base,
        )
    return found


def _rehearsed(loaded: LoadedModel, rows: int, settings: TrainSettings) -> list[list[Example]]:
    """Packs of the base's own replies, one each."""
    count = round(settings.replay * rows)
    return [[example] for example in rehearsal(loaded, count, settings.seed)] if count else []


def make_head(model: Any, settings: TrainSettings) -> SufficiencyHead | None:
    """The sufficiency head of a new run, beside its model; none where its loss has no weight."""
    if settings.head_weight == 0:
        return None
    config = model.config.get_text_config()
    head = SufficiencyHead(middle_layers(config.num_hidden_layers), config.hidden_size)
    return head.to(model.device)


def _train(
    wrapped: Wrapped,
    head: SufficiencyHead | None,
    plan: list[steps.Batch],
    material: Material,
    settings: TrainSettings,
    out: Path,
) -> Progress:
    model = wrapped.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    parameters += list(head.parameters()) if head is not None else []
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(parameters, lr=settings.rate, weight_decay=settings.weight_decay)
    total = len(plan)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(total, settings.warmup))
    progress = checkpoint.resume(out, material.fingerprint, optimizer, scheduler, wrapped, head)
    progress = progress or Progress(best_from=wrapped.best_from)
    autocast = precision.prepare(model, settings.bfloat16)
    evaluate_at = {round(total * k / settings.evaluations) for k in range(1, settings.evaluations)}
    evaluate_at.add(total)

    others = parallel.rank() > 0
    bar = tqdm(total=total, initial=progress.step, desc="train", unit="step", disable=others)
    while progress.step < total and progress.stale() < settings.patience:
        started = time.perf_counter()
        batch = plan[progress.step]
        losses = steps.backward(
            model,
            head,
            parallel.share(batch, parallel.rank(), parallel.processes()),
            settings.head_weight,
            autocast,
            settings.recompute_above,
            settings.kl,
            steps.counts(batch),
        )
        if wrapped.penalty is not None and parallel.rank() == 0:
            wrapped.penalty().backward()
        parallel.sum_gradients(parameters)
        losses = parallel.summed(losses)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip))
        means = losses.means(settings.head_weight)
        if not (math.isfinite(means["total"]) and math.isfinite(norm)):
            raise UserError(_diverged(out, progress, means["total"], norm, settings))
        optimizer.step()
        scheduler.step()
        progress.step += 1
        if wrapped.after_step is not None:
            wrapped.after_step(progress.step)
        optimizer.zero_grad()

        progress.history.append({"step": progress.step, **means})
        progress.tokens += losses.read
        progress.seconds += time.perf_counter() - started
        progress.peak_memory = max(progress.peak_memory, peak_memory())
        bar.update()
        rate = progress.tokens / progress.seconds
        bar.set_postfix_str(f"loss {means['total']:.3f}, {rate:,.0f} tokens/s")

        if progress.step in evaluate_at and material.validation:
            _evaluate(model, head, material, settings, progress, out, autocast)
        if progress.step % settings.checkpoint_every == 0 or progress.step == total:
            release_memory()
            checkpoint.save(
                out, material.fingerprint, progress, optimizer, scheduler, wrapped, head
            )
    bar.close()
    checkpoint.load_best(out, model, head)
    return progress


def _evaluate(
    model: Any,
    head: SufficiencyHead | None,
    material: Material,
    settings: TrainSettings,
    progress: Progress,
    out: Path,
    autocast: Any,
) -> None:
    others = parallel.rank() > 0  # they validate too: all must know when to stop
    bar = tqdm(material.validation, desc="validate", unit="pack", leave=False, disable=others)
    means = steps.evaluate(model, head, bar, settings.head_weight, autocast)
    progress.evaluations.append({"step": progress.step, **means})
    if not others:
        tqdm.write(
            f"step {progress.step}: validation loss {means['total']:.4f} "
            f"(answer {means['answer']:.4f}, head {means['head_calibrated']:.4f}, "
            f"head's AUROC {means.get('head_auroc', float('nan')):.3f})"
        )
    if progress.best() is progress.evaluations[-1]:
        checkpoint.save_best(out, model, head)


def _diverged(
    out: Path, progress: Progress, loss: float, norm: float, settings: TrainSettings
) -> str:
    """What became infinite, what is left, and what to do."""
    last = out / checkpoint.FOLDER / checkpoint.LAST
    return (
        f"step {progress.step + 1}: loss {loss:g}, gradient norm {norm:g}: training has diverged "
        f"and stops before these weights\n  kept: "
        f"{last if last.exists() else 'nothing, it was before the first checkpoint'}\n"
        f"  lower --learning-rate (now {settings.rate:g}; {METHODS[settings.method].rate:g} is the "
        "default of this method), or set `bfloat16: 'off'` in --config; then start over with "
        "--fresh or another --out"
    )


def _rate(total: int, warmup: float) -> Callable[[int], float]:
    """Linear warm-up, then linear decay to a tenth: the factor on the learning rate by step."""
    rising = max(1, round(total * warmup))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 1.0 - 0.9 * (step - rising) / max(1, total - rising)

    return factor


def _is_finished(out: Path, fingerprint: str) -> bool:
    path = out / "training.json"
    if not path.exists():
        return False
    return bool(json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == fingerprint)


def _write_run(
    out: Path,
    data: Path,
    loaded: LoadedModel,
    model: Any,
    head: SufficiencyHead | None,
    material: Material,
    settings: TrainSettings,
    progress: Progress,
    forgot: Forgetting | None,
) -> None:
    """The run's folder; ``training.json`` comes last, and says that the rest is whole."""
    ledger = ledger_of(out)
    try:
        with quiet_peft():
            model.save_pretrained(out)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the adapter to {out}: {error}") from error
    if head is not None:
        head.save(out)
    else:  # an earlier training's would be read with this adapter
        (out / HEAD_FILE).unlink(missing_ok=True)
    for name in CALIBRATION_FILES:
        (out / name).unlink(missing_ok=True)
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    RunFile(contract, ledger=ledger).write(out)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    training = {
        "fingerprint": material.fingerprint,
        "settings": {**settings.model_dump(), "learning_rate": settings.rate},
        "data": str(data),
        "rows": material.rows,
        "trained_parameters": trained,
        "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
        "progress": asdict(progress),
        "forgetting": forgot.to_json() if forgot is not None else None,
    }
    write_card(out, loaded.base, training)
    write_json(out / "training.json", training)
