"""A run's folder as it is left behind: what a training has made, and nothing of an earlier one."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from abstain import quantised
from abstain.head import SufficiencyHead
from abstain.model import quiet_peft
from abstain.run import CALIBRATION_FILES, HEAD, RunFile, ledger_of, write_card
from curate.contract import Contract
from curate.errors import UserError
from curate.files import write_json

TRAINING = "training.json"


def write(
    out: Path,
    base: str,
    model: Any,
    head: SufficiencyHead | None,
    contract: Contract,
    training: dict[str, Any],
    bits: quantised.Bits | None,
    **how: Any,
) -> None:
    """Adapter, head, contract, model card; ``training.json`` comes last: the rest is whole then.

    ``how`` goes to ``save_pretrained``. A calibration does not stay, its ledger does. Raises
    `UserError` where the disk does not take it.
    """
    ledger = ledger_of(out)
    try:
        with quiet_peft():
            model.save_pretrained(out, **how)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the adapter to {out}: {error}") from error
    if head is not None:
        head.save(out)
    else:  # an earlier training's would be read with this adapter
        (out / HEAD).unlink(missing_ok=True)
    for name in CALIBRATION_FILES:
        (out / name).unlink(missing_ok=True)
    RunFile(contract, ledger=ledger).write(out)
    quantised.write(out, bits)
    write_card(out, base, training)
    write_json(out / TRAINING, training)
