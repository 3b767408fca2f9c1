"""The training loop, to be read from top to bottom."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from abstain.head import SufficiencyHead
from abstain.model import LoadedModel, device, load_model, window
from abstain.prefix import supports_packing
from curate.console import say
from curate.contract import Contract
from curate.errors import UserError
from curate.files import read_json, writable_folder, write_json
from curate.record import read_fold
from train import (
    checkpoint,
    offload,
    optimizers,
    out_of_memory,
    parallel,
    precision,
    run_folder,
    steps,
)
from train import shard as sharding
from train.checkpoint import Progress
from train.collate import Example
from train.curriculum import refusal_aware
from train.forgetting import forgetting
from train.material import Material, read_material
from train.memory import free_at_once, limit_kernel_cache, peak_memory, release_memory
from train.methods import METHODS, wrap
from train.methods.average import average
from train.methods.wrapped import Wrapped
from train.rehearsal import rehearsal
from train.settings import TrainSettings


def run(
    data: Path,
    out: Path,
    settings: TrainSettings,
    fresh: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Fine-tune ``settings.model`` on the data set in ``data`` and write the run to ``out``.

    ``watch`` is told after every validation; what it raises ends the training.

    Killed at any moment and started again with the same arguments, it goes on from its last
    checkpoint and ends with the same weights as an uninterrupted run.
    """
    parallel.start()
    packs: list[list[Example]] = []  # what a pack needs is in the advice, once they are known
    with out_of_memory.explained(settings, packs):
        return _run(data, out, settings, fresh, watch, packs)


def _run(
    data: Path,
    out: Path,
    settings: TrainSettings,
    fresh: bool,
    watch: Callable[[Progress], None] | None,
    packs: list[list[Example]],
) -> Progress:
    if fresh and parallel.rank() == 0:
        for name in (checkpoint.LAST, checkpoint.BEST):
            (out / checkpoint.FOLDER / name).unlink(missing_ok=True)
    writable_folder(out)
    parallel.wait()
    limit_kernel_cache()
    if settings.lean:
        free_at_once()
    torch.manual_seed(settings.seed)
    loaded = _base(settings)
    bound = window(loaded.model.config)
    material = read_material(
        data, loaded.tokenizer, loaded.end_token_id, bound, settings, supports_packing(loaded.model)
    )
    packs += material.train
    if not fresh and _is_finished(out, material.fingerprint, settings):
        if parallel.rank() == 0:
            say(f"{out}: already trained with these settings on these data (--fresh to redo)")
            _hold_to_limit(out, settings)
        return Progress(**read_json(out / run_folder.TRAINING)["progress"])
    with parallel.one_first():
        if settings.refusal_aware:
            rows = read_fold(data, "train")
            material.train = refusal_aware(material.train, rows, loaded, settings, out)
        rehearsed = rehearsal(loaded, settings, material.rows, out)
    plan = steps.plan(material.train, settings.rows_per_step, settings.seed, settings.epochs)
    plan = steps.with_rehearsal(plan, rehearsed, settings.epochs, settings.seed)
    with offload.stand_ins(loaded.model) if settings.offload else contextlib.nullcontext():
        wrapped = wrap(loaded.model, settings, len(plan))
    wrapped.model.train()
    head = steps.make_head(wrapped.model, settings.head_weight)
    if parallel.processes() > 1:  # everybody's weights are alike by now, his dropout is his own
        torch.manual_seed(settings.seed + parallel.rank())
    progress = loop(wrapped, head, plan, material, settings, out, watch)
    if parallel.rank() == 0:
        _write_run(out, data, loaded, wrapped.model, head, material, settings, progress)
    parallel.wait()
    if parallel.rank() == 0:
        del loaded, wrapped  # what follows loads two models of its own
        _hold_to_limit(out, settings)
    return progress


def _base(settings: TrainSettings) -> LoadedModel:
    """The model to be trained, where the settings have it lie."""
    if settings.offload:
        return offload.load(settings.model, settings.offload)
    # A base that is to be split is split before a device sees it.
    where = {"": "cpu"} if settings.shard else None
    return load_model(settings.model, settings.base_bits, device_map=where)


def _hold_to_limit(out: Path, settings: TrainSettings) -> None:
    """Measure what a run has unlearnt, once, and raise `UserError` where it is too much."""
    if settings.forgetting_limit is None:
        return
    training = read_json(out / run_folder.TRAINING)
    if training["forgetting"] is None:
        training["forgetting"] = forgetting(out).to_json()
        write_json(out / run_folder.TRAINING, training)
    lost = training["forgetting"]["lost"]
    if lost > settings.forgetting_limit:
        raise UserError(
            f"{out}: trained and written, but plain text costs {lost:+.1%} bits a byte, "
            f"above the limit of {settings.forgetting_limit:.1%}\n  less is forgotten with "
            "--replay 0.2, a lower --rank or --learning-rate, or --average 0.7"
        )


def loop(
    wrapped: Wrapped,
    head: SufficiencyHead | None,
    plan: list[steps.Batch],
    material: Material,
    settings: TrainSettings,
    out: Path,
    watch: Callable[[Progress], None] | None,
) -> Progress:
    """Train on what ``plan`` holds, step by step, from the last checkpoint on; the best weights."""
    model = wrapped.model
    parameters = steps.trained(model, head)
    optimizer = optimizers.make(parameters, settings)
    total = len(plan)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(total, settings.warmup))
    autocast = precision.prepare(model, settings.bfloat16)
    if settings.shard:
        sharding.shard(model)
        if head is not None:
            head.to(device())
    share = sharding.even if settings.shard else parallel.share
    progress = checkpoint.resume(out, material.fingerprint, optimizer, scheduler, wrapped, head)
    progress = progress or Progress(best_from=wrapped.best_from)
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
            share(batch, parallel.rank(), parallel.processes()),
            settings.head_weight,
            autocast,
            settings.keep,
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
        weights = float(torch.nn.utils.get_total_norm(parameters))
        if not math.isfinite(weights):  # before they are kept
            raise UserError(_diverged(out, progress, means["total"], weights, settings))
        scheduler.step()
        progress.step += 1
        if wrapped.after_step is not None:
            wrapped.after_step(progress.step)
        optimizer.zero_grad()

        progress.history.append({"step": progress.step, **means, "gradient_norm": norm})
        progress.tokens += losses.read
        progress.seconds += time.perf_counter() - started
        bar.update()
        rate = progress.tokens / progress.seconds
        bar.set_postfix_str(f"loss {means['total']:.3f}, {rate:,.0f} tokens/s")

        if progress.step in evaluate_at and material.validation:
            _evaluate(model, head, material, settings, progress, out, autocast)
            if watch is not None:
                watch(progress)
        if progress.step % settings.checkpoint_every == 0 or progress.step == total:
            release_memory()
            checkpoint.save(
                out, material.fingerprint, progress, optimizer, scheduler, wrapped, head
            )
        progress.peak_memory = max(progress.peak_memory, peak_memory())
    bar.close()
    checkpoint.load_best(out, model, head)
    if settings.average < 1:
        average(model, settings)
        validation = steps.evaluate(
            model, head, material.validation, settings.head_weight, autocast
        )
        progress.averaged = validation if material.validation else None
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
    means = parallel.everybodys(means)[0]  # whose last digits may differ
    if not math.isfinite(means["total"]):
        raise UserError(_diverged(out, progress, means["total"], None, settings))
    progress.evaluations.append({"step": progress.step, **means})
    if not others:
        say(
            f"step {progress.step}: validation loss {means['total']:.4f} "
            f"(answer {means['answer']:.4f}, head {means['head_calibrated']:.4f}, "
            f"head's AUROC {means.get('head_auroc', float('nan')):.3f})"
        )
    if progress.best() is progress.evaluations[-1]:
        checkpoint.save_best(out, model, head)


def _diverged(
    out: Path, progress: Progress, loss: float, norm: float | None, settings: TrainSettings
) -> str:
    """What became infinite (in a step, or, without a norm, in a validation), and what to do."""
    last = out / checkpoint.FOLDER / checkpoint.LAST
    what = f"step {progress.step}: validation loss {loss:g}"
    if norm is not None:
        what = f"step {progress.step + 1}: loss {loss:g}, norm {norm:g}"
    return (
        f"{what}: training has diverged and stops before these weights\n  kept: "
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


def _is_finished(out: Path, fingerprint: str, settings: TrainSettings) -> bool:
    path = out / run_folder.TRAINING
    if not path.exists():
        return False
    stored = read_json(path)
    same = stored["settings"].get("average", 1.0) == settings.average
    return same and bool(stored["fingerprint"] == fingerprint)


def _write_run(
    out: Path,
    data: Path,
    loaded: LoadedModel,
    model: Any,
    head: SufficiencyHead | None,
    material: Material,
    settings: TrainSettings,
    progress: Progress,
) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    training = {
        "fingerprint": material.fingerprint,
        "settings": {**settings.model_dump(), "learning_rate": settings.rate},
        "data": str(data),
        "method": METHODS[settings.method].trains,
        "rows": material.rows,
        "trained_parameters": trained,
        "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
        "progress": asdict(progress),
        "forgetting": None,
    }
    contract = Contract(abstention_phrase=settings.abstention_phrase)
    run_folder.write(out, loaded.base, model, head, contract, training, settings.base_bits)
