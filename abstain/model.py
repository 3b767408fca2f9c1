"""Loading models: a hub id, a local folder, a run of ours, or the embedded default."""

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from abstain import quantised
from abstain.run import CONFIG, FILE
from curate import embedded
from curate.errors import UserError, os_error

log = logging.getLogger(__name__)

EMBEDDED = "smollm2-135m"
# The de-quantised Q4_1 weights of SmolLM2-135M-Instruct; results with them are not results of
# the original model, and are never reported as such.


@dataclass
class LoadedModel:
    """A causal language model with its tokenizer, and where they came from."""

    model: Any
    tokenizer: Any
    base: str  # what `--model` was
    run: Path | None = None  # the run's folder, where one was loaded

    @property
    def end_token_id(self) -> int:
        """The one token that ends an answer, in training and in serving."""
        token = self.tokenizer.eos_token_id
        if token is None:
            raise UserError(f"{self.base}: its tokenizer has no end token; choose another model")
        return int(token)


def device() -> Any:
    """The accelerator where there is one, else the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    name: str,
    bits: quantised.Bits | None = None,
    whole: bool = False,
    device_map: dict[str, Any] | None = None,
) -> LoadedModel:
    """Load ``name``: a run's folder (adapter and its base), a local folder, or a hub id.

    ``bits``: keep a base's linear weights in so many. A run's base is kept as it was in training;
    ``whole`` gives those rounded weights as plain ones, into which an adapter can be merged.
    ``device_map``: where each part of a base is to lie (Accelerate's).
    """
    run = Path(name)
    if (run / CONFIG).exists():
        return _load_run(run, whole)
    loaded = _load_base(name, bits, device_map)
    if (run / FILE).exists():  # merged into its base by `train export`, and a run still
        loaded.run = run
    return loaded


def load_tokenizer(name: str) -> tuple[Any, int, int | None]:
    """The tokenizer of a model, its end token and its window, without the model's weights."""
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, name)
    end_token_id = LoadedModel(None, tokenizer, name).end_token_id
    return tokenizer, end_token_id, window(model_config(name))


def model_config(name: str) -> Any:
    """The configuration of a model, without its weights."""
    from transformers import AutoConfig

    return _from_pretrained(AutoConfig, name)


def random_model(config: Any, name: str) -> Any:
    """A causal model of a configuration, its weights not read; ``name`` is for the error."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        kind = type(config).__name__.removesuffix("Config")
        raise UserError(
            f"{name}: {kind} is no causal language model that can be trained"
        ) from error


def window(config: Any) -> int | None:
    """How many tokens a model reads at most; None where its configuration sets no bound."""
    bound: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return bound


def _load_base(
    name: str,
    bits: quantised.Bits | None = None,
    device_map: dict[str, Any] | None = None,
) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, name)
    if bits is None and device_map is None:
        model = _from_pretrained(AutoModelForCausalLM, name).eval().to(device())
    else:
        how: dict[str, Any] = {"device_map": device_map or {"": device()}}
        if bits is not None:
            how["quantization_config"] = quantised.settings(bits)
        model = _from_pretrained(AutoModelForCausalLM, name, **how).eval()
    return LoadedModel(model, tokenizer, name)


def _from_pretrained(kind: Any, name: str, **how: Any) -> Any:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        return kind.from_pretrained(str(embedded_folder()) if name == EMBEDDED else name, **how)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot load model '{name}': {first_line}\n"
            f"  give a hub id, a folder with config.json and weights, or '{EMBEDDED}'"
        ) from error


def _load_run(run: Path, whole: bool) -> LoadedModel:
    from peft import PeftModel

    from abstain.adapted import load_adapted
    from abstain.run import KIND

    try:
        config = json.loads((run / "adapter_config.json").read_text(encoding="utf-8"))
        base = config["base_model_name_or_path"]
    except (json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{run}/adapter_config.json: damaged ({error}); train again") from error
    loaded = _load_base(base, quantised.bits_of(run))
    if whole and quantised.bits_of(run) is not None:
        loaded.model = loaded.model.dequantize()
    if KIND in config or config.get("peft_type") == "LN_TUNING":
        loaded.model.float()  # as it was trained: what was learnt stands among these weights
    if KIND in config:
        model: Any = load_adapted(loaded.model, run, config)
    else:
        try:
            with quiet_peft():
                model = PeftModel.from_pretrained(loaded.model, str(run))
        except (RuntimeError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise UserError(
                f"{run}: its adapter does not fit the base model {base}: {first_line}"
            ) from error
    # `eval` is said again because an adapter added to a model in eval mode starts with its own
    # dropout switched on (peft issue 3753).
    return LoadedModel(model.eval(), loaded.tokenizer, loaded.base, run)


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Without warnings of peft 0.21 that tell a user nothing.

    One comes from transformers 5 on every wrapped model; AdaLoRA, which may leave a layer no rank,
    draws two that are meant for others; biases that are added cannot be merged, which nobody does;
    embeddings that are trained are stored, as they should be; a normalisation of any kind can be
    copied.
    """
    import torch

    # As it is anyway, but said aloud, or SHiRA's layers draw a warning from torch.
    torch.sparse.check_sparse_tensor_invariants.disable()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected that the base layer has no bias")
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
        warnings.filterwarnings("ignore", message="Unsupported layer type .*Norm")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message=".*rank_pattern keys did not match")
        warnings.filterwarnings("ignore", message=r".*LoRA tensor\(s\) have invalid shape")
        yield


def embedded_folder() -> Path:
    """The embedded model as a folder of safetensors in the user's cache, made on first use."""
    folder = Path(platformdirs.user_cache_dir("grounded-abstain")) / embedded.SHA256[:16]
    if not (folder / "config.json").exists():
        _convert_embedded(folder)
    return folder


def _convert_embedded(folder: Path) -> None:
    gguf = embedded.weights()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    log.warning("converting the embedded model once, about 20 seconds, into %s", folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The loaded weights are plain float32 now; what still says "quantised" would stop saving.
    setattr(model, "hf_quantizer", None)  # noqa: B010 (its annotation denies None)
    del model.config.quantization_config
    half = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        tokenizer.save_pretrained(half)
        model.save_pretrained(half)
        half.replace(folder)
    except OSError as error:
        if not (folder / "config.json").exists():  # else another process was faster
            raise os_error("write the converted model", folder, error) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
