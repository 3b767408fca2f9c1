"""What an annotation's JSON says, held against the page's configuration; the server checks nothing.

An annotation that says what the page does not offer is `Invalid`, and says so; one that leaves
something open is read as far as it goes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from curate.annotate.label_studio import config
from curate.annotate.label_studio.config import Controls
from curate.annotate.said import Said, Span
from curate.generate.checks import span_of
from curate.record import NOT_A_SPAN, REASONS

Chosen = dict[str, list[str]]  # control → values


class Invalid(Exception):
    """The annotation cannot be read as one; the message says why."""


def read(result: Any, context: str, controls: Controls) -> Said:
    """What the parts of an annotation say together. Raises `Invalid`."""
    if not isinstance(result, list):
        raise Invalid(f"its result is no list but {type(result).__name__}")
    chosen: Chosen = {}
    spans: list[Span] = []
    for part in result:
        if isinstance(part, dict) and part.get("type") == "relation":
            continue  # between spans, drawn by hand; it answers nothing
        name, values, value = _part(part, controls)
        if name not in config.NAMES:
            continue  # somebody's own addition to the page
        if name == config.ANSWER:
            spans.append(_span(value, context))
        else:
            chosen.setdefault(name, []).extend(values)
    sufficient = _sufficient(chosen.get(config.SUFFICIENT, []))
    bad = config.BAD in chosen.get(config.QUESTION, [])
    if sufficient is None and not bad:
        raise Invalid(f"nothing is chosen for '{config.SUFFICIENT}'")
    for text in chosen.get(config.CORRECTED, []):
        if text.strip():
            spans.append(span_of(context, text.strip()) or (text.strip(), NOT_A_SPAN))
    reasons = [reason for reason in chosen.get(config.REASON, []) if reason in REASONS]
    return Said(
        sufficient,
        # Words that were marked before the choice fell on "no" answer nothing.
        tuple(dict.fromkeys(spans)) if sufficient else (),
        reasons[0] if reasons and sufficient is False else "",
        bad,
        "\n".join(chosen.get(config.COMMENT, [])),
    )


def _part(part: Any, controls: Controls) -> tuple[str, list[str], Mapping[str, Any]]:
    """One part's control, the values given in it, and all that it says."""
    if not isinstance(part, dict) or not isinstance(part.get("value"), dict):
        raise Invalid(f"a part of it is no result: {str(part)[:80]}")
    name, kind, value = part.get("from_name"), part.get("type"), part["value"]
    if not isinstance(name, str) or name not in controls:
        raise Invalid(f"the page has no control '{name}'")
    control = controls[name]
    if name not in config.NAMES:
        return name, [], value
    if kind != control.kind:
        raise Invalid(f"'{name}' is of kind {control.kind}, and not {kind}")
    values = value.get("text" if kind == "textarea" else kind)
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise Invalid(f"'{name}' has no {kind}")
    unknown = [one for one in values if control.values and one not in control.values]
    if unknown:
        raise Invalid(f"'{name}' does not offer '{unknown[0]}'")
    return name, list(values), value


def _sufficient(values: Sequence[str]) -> bool | None:
    if len(set(values)) > 1:
        raise Invalid(f"'{config.SUFFICIENT}' is both {' and '.join(sorted(set(values)))}")
    if not values or values[0] not in (config.YES, config.NO):
        return None
    return values[0] == config.YES


def _span(value: Mapping[str, Any], context: str) -> Span:
    """A marked span's text and start, in characters of the context.

    Today's server counts characters as Python does; versions that count UTF-16 code units put
    spans behind an emoji one too far, which the text that comes along tells.
    """
    start, end, text = value.get("start"), value.get("end"), value.get("text")
    if not isinstance(start, int) or not isinstance(end, int):
        raise Invalid(f"a marked span has no offsets: {str(dict(value))[:80]}")
    if not 0 <= start < end:
        raise Invalid(f"a marked span reaches from {start} to {end}")
    if not (context[start:end].strip() if text is None else str(text).strip()):
        raise Invalid(f"the span {start} to {end} has no words")
    if text is None or context[start:end] == text:
        return _trimmed(context, start, end)
    units = context.encode("utf-16-le", "surrogatepass")
    begin, stop = (len(units[: 2 * n].decode("utf-16-le", "ignore")) for n in (start, end))
    if context[begin:stop] == text:
        return _trimmed(context, begin, stop)
    raise Invalid(
        f"the span {start} to {end} is '{context[start:end][:40]}', not '{str(text)[:40]}'"
    )


def _trimmed(context: str, start: int, end: int) -> Span:
    """Without white space that was marked along with the words."""
    text = context[start:end]
    return text.strip(), start + len(text) - len(text.lstrip())
