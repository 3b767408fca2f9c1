"""Virtual tokens in front of every prompt: prefix tuning, prompt tuning, P-tuning."""

from typing import Any

from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """Trained keys and values in every layer, or trained embeddings in front of the first.

    Prefix tuning (Li and Liang 2021; without their network, as P-Tuning v2), prompt tuning (Lester
    et al. 2021), P-tuning (Liu et al. 2021). No dropout: MC dropout has nothing to draw from. The
    virtual tokens stand before the context, so they are part of the prefix that rows share.
    """
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, PromptTuningInit

    common: dict[str, Any] = {
        "num_virtual_tokens": settings.virtual_tokens,
        "task_type": "CAUSAL_LM",
    }
    config: Any
    if settings.method == "prefix":
        config = PrefixTuningConfig(**common)
    elif settings.method == "p-tuning":
        config = PromptEncoderConfig(
            encoder_hidden_size=model.config.get_text_config().hidden_size, **common
        )
    else:
        # Embeddings of real tokens start nearer to what the model reads (Lester et al., section 3).
        config = PromptTuningConfig(prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB, **common)
    return Wrapped(with_peft(model, config))
