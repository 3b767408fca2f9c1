"""A run's folder: what it must hold, its ``abstain.json``, and its model card."""

import hashlib
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from abstain import quantised
from abstain.calibration import Calibration
from abstain.ledger import Ledger
from curate.contract import Contract
from curate.errors import UserError
from curate.files import read_json, sha256, write_json, write_text
from curate.record import digest

log = logging.getLogger(__name__)

FILE = "abstain.json"
ENDPOINT = "endpoint.json"  # where a folder stands for a server's model
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
KIND = "abstain_adapter"  # the key that tells configurations of our own adapters from PEFT's
# What decides an answer and how sure it is.
HEAD = "sufficiency_head.safetensors"
_WEIGHTS = (CONFIG, WEIGHTS, HEAD, quantised.FILE)
_PIECE = 1 << 12  # bytes of each tensor of a base that are looked at
# What `abstain calibrate` fits beside the calibrators, and a new training makes worthless.
CALIBRATION_FILES = ("probe.safetensors", "reason_head.safetensors", "laplace.safetensors")


@dataclass
class RunFile:
    """``abstain.json``: the contract, and the calibrator and threshold once there are any."""

    contract: Contract
    calibration: Calibration | None = None
    ledger: Ledger = field(default_factory=Ledger)

    def write(self, run: Path) -> None:
        """Store it in the run's folder."""
        calibration = self.calibration.to_json() if self.calibration is not None else None
        write_json(
            run / FILE,
            {
                "version": 1,
                "contract": self.contract.to_json(),
                "calibration": calibration,
                "ledger": self.ledger.to_json(),
            },
        )


def ledger_of(run: Path) -> Ledger:
    """The ledger that a new training in the same folder goes on with; empty where there is none."""
    if not (run / FILE).exists():
        return Ledger()
    try:
        return Ledger.from_json(read_json(run / FILE)["ledger"])
    except (KeyError, TypeError) as error:
        log.warning("%s: its ledger of certifications is damaged (%r) and lost", run / FILE, error)
        return Ledger()


def weights_hash(run: Path) -> str:
    """What tells this model from others: its adapter, its head, and the base beneath them."""
    if (run / ENDPOINT).exists():  # its weights nobody here can see
        return digest(json.dumps(read_json(run / ENDPOINT), sort_keys=True))
    parts = [f"{path.name} {sha256(path)}" for name in _WEIGHTS if (path := run / name).exists()]
    return digest(*parts, *_base(run))


def _base(run: Path) -> list[str]:
    """What lies beneath a run: its base's name, and of a folder's weights a look at each tensor.

    A merged run is its own base, wherever it lies.
    """
    if not (run / CONFIG).exists():
        return look_at(run)
    base = Path(read_json(run / CONFIG)["base_model_name_or_path"])
    return [str(base), *look_at(base)]


def look_at(folder: Path) -> list[str]:
    """What tells a folder's weights from others: their shapes, and where every tensor begins.

    Training moves most of a tensor's numbers, and gigabytes need not be read. Nothing of a name
    that is no folder; nothing of what calibration leaves in one.
    """
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        if path.name in {HEAD, WEIGHTS, *CALIBRATION_FILES}:
            continue
        with path.open("rb") as file:
            header = file.read(int.from_bytes(file.read(8), "little"))
            start = file.tell()
            seen = hashlib.sha256(header)
            tensors = json.loads(header)
            tensors.pop("__metadata__", None)
            for begin in sorted(tensor["data_offsets"][0] for tensor in tensors.values()):
                file.seek(start + begin)
                seen.update(file.read(_PIECE))
        found.append(f"{path.name} {path.stat().st_size} {seen.hexdigest()}")
    return found


def base_hash(name: str, bits: int | None) -> str:
    """What tells one untrained model, kept in so many bits, from others; of the same name too."""
    return digest(name, *look_at(Path(name)), str(bits))


def policy_hash(run: Path, contract: Contract, calibration: Calibration) -> str:
    """What names one frozen policy: the weights, the prompt, the evidence, confidence, threshold.

    A guarantee covers exactly one.
    """
    fitted = [run / name for name in CALIBRATION_FILES if (run / name).exists()]
    parts = {
        "weights": weights_hash(run),
        "fitted": {path.name: sha256(path) for path in fitted},
        "contract": contract.to_json(),
        "evidence": calibration.evidence.to_json(),
        "correct": calibration.correct.to_json(),
        "threshold": calibration.threshold.value,
        "decline_below": calibration.decline_below,
        "routing": calibration.routing,
        "second": calibration.second.to_json() if calibration.second is not None else None,
    }
    return digest(json.dumps(parts, sort_keys=True))


def _without_a_stale_promise(run: Path, stored: RunFile) -> RunFile:
    """The run file, its guarantee taken away where something has changed since."""
    calibration = stored.calibration
    if calibration is None or calibration.threshold.guarantee is None:
        return stored
    now = policy_hash(run, stored.contract, calibration)
    if calibration.threshold.guarantee["policy_hash"] == now:
        return stored
    log.warning(
        "%s: its weights, prompt or threshold have changed since its guarantee was certified, "
        "which no longer holds; calibrate it again",
        run,
    )
    bare = replace(calibration.threshold, guarantee=None)
    return RunFile(stored.contract, replace(calibration, threshold=bare), stored.ledger)


def read_run_file(run: Path | None) -> RunFile:
    """The ``abstain.json`` of a run; of an untrained model, the default contract."""
    if run is None:
        return RunFile(Contract())
    if not (run / FILE).exists():
        raise UserError(f"{run}: has no {FILE}; it is not a run of `train run`")
    value = read_json(run / FILE)
    try:
        stored = value["calibration"]
        calibration = Calibration.from_json(stored) if stored is not None else None
        contract = Contract.from_json(value["contract"])
        found = RunFile(contract, calibration, Ledger.from_json(value.get("ledger", [])))
        return _without_a_stale_promise(run, found)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run / FILE}: damaged ({error!r}); write null behind its 'calibration' and calibrate "
            "again, or, if its 'contract' is damaged too, train again"
        ) from error


def write_card(run: Path, base: str, training: dict[str, Any]) -> None:
    """The model card: what was trained, from what, with which settings."""
    progress = training["progress"]
    note = ""
    if base == "smollm2-135m":
        note = (
            "\nThe base model holds the de-quantised Q4_1 weights of SmolLM2-135M-Instruct "
            "(Apache-2.0). They differ from the original's; figures for one are not figures "
            "for the other.\n"
        )
    if bits := training["settings"].get("base_bits"):
        note += (
            f"\nTrained on the base's weights in {bits} bits (bitsandbytes), whose rounding it "
            "corrects; on the base as it is stored it may say other things.\n"
        )
    losses = "\n".join(
        f"| {e['step']} | {e['total']:.4f} | {e['answer']:.4f} | {e['head_calibrated']:.4f} |"
        for e in progress["evaluations"]
    )
    method = training["settings"]["method"]
    ours = KIND in read_json(run / CONFIG)
    library = "loaded by grounded-abstain alone" if ours else "loaded by PEFT as well"
    averaged = progress["averaged"]
    if averaged is not None:
        losses += (
            f"\n| averaged with the base | {averaged['total']:.4f} | {averaged['answer']:.4f} | "
            f"{averaged['head_calibrated']:.4f} |"
        )
    write_text(
        run / "README.md",
        f"""---
{"" if ours else "library_name: peft" + chr(10)}base_model: {base}
tags: [question-answering, abstention, {method}]
---
# A model that says when the context does not tell

An adapter for `{base}`, trained to answer a question from a given context and to abstain
when the context does not hold the answer. Method: {method}, {training["method"]};
{library}.
{note}
Trained on {training["rows"]:,} rows in {progress["step"]:,} steps,
{progress["seconds"] / 60:.1f} minutes, {progress["peak_memory"]:.2f} GiB at most.

| step | validation loss | answer | sufficiency head, calibrated |
|---|---|---|---|
{losses}

Calibrate it before use: `abstain calibrate RUN --data DIR --target-risk 0.10 --delta 0.05`.
Ask it: `abstain ask RUN --context FILE "QUESTION"`.

## Settings
```json
{json.dumps(training["settings"], indent=1)}
```
""",
    )
