"""The settings of a training run: typed, with defaults that were measured (see README)."""

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from abstain.run import CONFIG
from curate.errors import UserError
from train.methods import METHODS, Name


def _why(reason: str) -> dict[str, JsonValue]:
    """Where a default comes from, printed by `train settings`."""
    return {"why": reason}


class TrainSettings(BaseModel):
    """Everything that decides what a run learns; stored in its ``training.json``."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("smollm2-135m", description="hub id, local folder, or smollm2-135m")
    method: Name = Field("lora", description="what is trained (see `train run --help`)")
    rank: int = Field(
        16,
        ge=1,
        description="rank r of LoRA and its kin; sparse: as many weights",
        json_schema_extra=_why("on one task little is gained above 8 (Hu et al. 2021, table 6)"),
    )
    alpha: int = Field(
        32,
        gt=0,
        description="LoRA scale: updates count alpha / r",
        json_schema_extra=_why(
            "twice the default rank; dividing by r keeps the best rate nearly the same at every "
            "rank (Hu et al. 2021, section 4.1)"
        ),
    )
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="dropout of LoRA and bottlenecks, later MC dropout's",
        json_schema_extra=_why("QLoRA's for models up to 13B (Dettmers et al. 2023)"),
    )
    dropout_mask: Literal["shared", "token"] = Field(
        "shared", description="a mask for all tokens of a pass (fast), or one for each token"
    )
    virtual_tokens: int = Field(20, ge=1, description="of prefix, prompt and p-tuning")
    bottleneck: int = Field(64, ge=1, description="inner size of a bottleneck adapter")
    fuse: list[str] = Field([], description="runs of --method bottleneck, for adapterfusion")
    density: float = Field(0.005, gt=0, lt=1, description="share of weights diffpruning changes")
    top_layers: int = Field(4, ge=1, description="highest blocks that selective and low-lr train")
    epochs: float = Field(
        3.0,
        gt=0,
        description="passes over the train split, may be fractional",
        json_schema_extra=_why("of 2 to 4 for labelled answers (Devlin et al. 2019)"),
    )
    learning_rate: float | None = Field(None, gt=0, description="none given: the method's own")
    base_bits: Literal[4, 8] | None = Field(
        None, description="keep the base's linear weights in so many bits; null: as they are stored"
    )
    optimizer: Literal["adamw", "adam", "adamw8bit"] = Field(
        "adamw",
        description="adam counts weight decay into the gradient; adamw8bit keeps 8-bit moments",
        json_schema_extra=_why("decay apart from the gradient (Loshchilov and Hutter 2019)"),
    )
    warmup: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of steps with a rising rate",
        json_schema_extra=_why("between QLoRA's 0.03 and BERT's 0.1"),
    )
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="pull of every trained weight towards zero",
        json_schema_extra=_why("BERT's (Devlin et al. 2019) and AdamW's own"),
    )
    clip: float = Field(
        1.0,
        gt=0,
        description="largest gradient norm",
        json_schema_extra=_why("BERT's; bounds what one odd batch does (Pascanu et al. 2013)"),
    )
    head_weight: float = Field(
        3.0, ge=0, description="weight of the sufficiency head's loss; 0: no head"
    )
    rows_per_step: int = Field(
        12,
        ge=1,
        description="rows behind one optimiser step",
        json_schema_extra=_why("near QLoRA's 16; as many as one shared-prefix pack holds"),
    )
    max_rows: int = Field(12, ge=1, description="rows in one shared-prefix pack")
    max_tokens: int = Field(1024, ge=16, description="tokens a row may have, prompt and answer")
    replay: float = Field(
        0.0, ge=0, description="rehearsed replies of the base for each training row"
    )
    kl: float = Field(
        0.0,
        ge=0,
        description="learn them as divergence from the base, with this weight; 0: as answers",
    )
    row_weights: bool = Field(
        False, description="a row counts for as many questions as it stands for (its weight)"
    )
    refusal_aware: float = Field(
        0.0,
        ge=0,
        le=1,
        description="an answer that the untrained model does not find counts so much less, "
        "and what it should not have answered so much more",
    )
    abstain_reward: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="what declining earns where there is an answer; the answer earns 1",
    )
    average: float = Field(
        1.0, gt=0, le=1, description="share of what training changed that is kept in the end"
    )
    forgetting_limit: float | None = Field(
        None, gt=0, description="growth of bits a byte of plain text above which a run fails"
    )
    seed: int = 13
    bfloat16: Literal["auto", "on", "off"] = "auto"
    abstention_phrase: str = Field(
        "unanswerable", min_length=1, description="what the model says when the context does not"
    )
    evaluations: int = Field(4, ge=1, description="times that the validation loss is measured")
    patience: int = Field(2, ge=1, description="evaluations without a better loss before stopping")
    checkpoint_every: int = Field(10, ge=1, description="optimiser steps between checkpoints")
    offload: Literal["cpu", "disk"] | None = Field(
        None, description="where the base's frozen blocks lie until they run; all compute twice"
    )
    shard: bool = Field(
        False, description="split the base's frozen weights among the processes of torchrun (FSDP)"
    )
    lean: bool = Field(
        False, description="give freed memory back at once: needs less, and is slower (CPU)"
    )
    recompute_above: int = Field(
        512, ge=0, description="tokens of a pack above which some blocks compute twice"
    )

    @property
    def rate(self) -> float:
        """The largest learning rate: the one given, else the method's own."""
        return METHODS[self.method].rate if self.learning_rate is None else self.learning_rate

    @property
    def keep(self) -> int:
        """Tokens of a pack above which some blocks compute twice."""
        return 0 if self.offload else self.recompute_above

    @property
    def leaves(self) -> bool:
        """Whether frozen weights may lie elsewhere: with other processes, in RAM, on disk."""
        return METHODS[self.method].offloads and self.base_bits is None

    @property
    def virtual(self) -> int:
        """Virtual tokens that take room in the model's window."""
        return self.virtual_tokens if self.method in ("prefix", "prompt", "p-tuning") else 0

    @model_validator(mode="after")
    def _averaged(self) -> "TrainSettings":
        if self.average < 1 and not METHODS[self.method].averages:
            possible = ", ".join(name for name, method in METHODS.items() if method.averages)
            raise ValueError(f"average goes with {possible}; not with {self.method}")
        return self

    @model_validator(mode="after")
    def _quantised(self) -> "TrainSettings":
        bits = self.base_bits
        if bits is not None and bits not in METHODS[self.method].quantised:
            possible = ", ".join(n for n, method in METHODS.items() if bits in method.quantised)
            raise ValueError(f"base_bits {bits} goes with {possible}; not with {self.method}")
        return self

    @model_validator(mode="after")
    def _offloaded(self) -> "TrainSettings":
        if not (self.offload or self.shard):
            return self
        if self.forgetting_limit is not None:
            raise ValueError(
                "forgetting_limit loads the models whole, which offload and shard avoid: measure "
                "afterwards, with `train forgetting` on a larger machine"
            )
        if self.offload and self.shard:
            raise ValueError("offload and shard: one or the other")
        name = "shard" if self.shard else "offload"
        if not self.leaves:
            possible = ", ".join(name for name, method in METHODS.items() if method.offloads)
            raise ValueError(f"{name} goes with {possible}, and with whole weights (no base_bits)")
        if self.shard and self.kl:
            raise ValueError("shard: all processes gather as often; kl reads some packs twice")
        return self

    @model_validator(mode="after")
    def _rehearsed(self) -> "TrainSettings":
        if self.kl and not self.replay:
            raise ValueError("kl is computed on rehearsed replies: give replay too, e.g. 0.2")
        return self

    @model_validator(mode="after")
    def _slow(self) -> "TrainSettings":
        if self.method == "low-lr" and not 1e-5 <= self.rate <= 5e-5:
            raise ValueError(
                f"low-lr trains at 1e-5 to 5e-5, not {self.rate:g}; --method selective takes others"
            )
        return self

    @field_validator("model")
    @classmethod
    def _absolute(cls, name: str) -> str:
        """A run knows its base by this name, and is asked from other folders."""
        if Path(name, CONFIG).exists():
            raise ValueError(
                f"{name} is a run: train its base, or what `train export {name}` merges"
            )
        return str(Path(name).resolve()) if Path(name, "config.json").exists() else name


def changed(settings: TrainSettings, values: dict[str, Any]) -> TrainSettings:
    """The same settings but for some; `UserError` that names what is wrong with them."""
    try:
        return TrainSettings.model_validate(settings.model_dump() | values)
    except ValidationError as error:
        raise UserError("\n".join(map(_problem, error.errors()))) from error


def _problem(error: Any) -> str:
    """One of pydantic's errors; without a place where it is about several settings."""
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"--{str(error['loc'][0]).replace('_', '-')}: {message}" if error["loc"] else message
