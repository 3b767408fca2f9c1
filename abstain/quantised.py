"""Bases whose linear weights are kept in 8 or 4 bits (bitsandbytes), on a GPU or a processor.

What a run was trained on is what it must be served on: an adapter corrects the rounding errors of
its own base too (Dettmers et al. 2023, "QLoRA"), so the run's folder says how its base was rounded.
"""

import logging
from pathlib import Path
from typing import Any, Literal

from curate.errors import UserError
from curate.files import read_json, write_json

FILE = "base.json"  # in a run's folder, where its base is quantised
Bits = Literal[4, 8]
# Bytes that a weight takes: bitsandbytes keeps a scale for each row of 8-bit weights, and one,
# itself in 8 bits, for each 64 4-bit weights.
BYTES = {4: 0.5 + 1 / 64 + 4 / (64 * 256), 8: 1.0}


def settings(bits: Bits) -> Any:
    """What `transformers` is told: normal-float 4 bits scaled twice, or LLM.int8()."""
    import torch
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401 - said here, where the remedy can be told
    except ImportError as error:
        raise UserError(
            f"a base in {bits} bits needs bitsandbytes: pip install 'grounded-abstain[quantised]'"
        ) from error
    # It tells of every multiplication that its inputs are rounded, which is its method.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported(False)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if half else torch.float32,
    )


def write(run: Path, bits: Bits | None) -> None:
    """Note in a run's folder how its base is kept."""
    if bits is None:
        (run / FILE).unlink(missing_ok=True)
    else:
        write_json(run / FILE, {"bits": bits})


def bits_of(run: Path) -> Bits | None:
    """How the base of a run is kept; None: as it is stored."""
    if not (run / FILE).exists():
        return None
    bits = read_json(run / FILE).get("bits")
    if bits not in BYTES:
        raise UserError(f"{run / FILE}: bits are 4 or 8, not {bits}")
    found: Bits = bits
    return found
