"""Virtual tokens of prompt learning: what stands in front of every prompt, and is no text.

Prefix tuning trains their keys and values, prompt tuning and P-tuning their embeddings. Either way
they come down to keys and values of each layer that every token sees: a cache that is not empty to
begin with. Trees of tokens do not know of them; positions count them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any


def count(model: Any) -> int:
    """How many virtual tokens a model puts in front of every prompt; mostly none."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return 0
    return int(config.num_virtual_tokens)


@contextlib.contextmanager
def without_adapter(model: Any) -> Iterator[Any]:
    """The model to ask for what the base alone would say."""
    if count(model):
        yield model.get_base_model()
        return
    with model.disable_adapter():
        yield model


def begin(model: Any, cache: Any) -> Any:
    """``cache``, or a new one for None, with the virtual tokens' keys and values in front.

    It is left as it is where it holds tokens already. Gradients flow into what is trained.
    """
    from transformers import DynamicCache

    if cache is not None and cache.get_seq_length() > 0:
        return cache
    base = model.get_base_model()
    if cache is None:
        cache = DynamicCache(config=base.config)
    prompt = model.get_prompt(batch_size=1)
    if hasattr(prompt, "layers"):  # prefix tuning's keys and values
        for number, layer in enumerate(prompt.layers):
            cache.update(layer.keys, layer.values, number)
    else:
        dtype = base.get_input_embeddings().weight.dtype
        base(inputs_embeds=prompt.to(dtype), past_key_values=cache, use_cache=True,
             logits_to_keep=1)  # fmt: skip
    return cache
