"""The labelling page: its configuration, and what of it a project must have for us to read it."""

from dataclasses import dataclass
from pathlib import Path

from curate.errors import UserError

# The names of the page's controls: labelling.xml has them, and every annotation.
ANSWER, SUFFICIENT, REASON, CORRECTED = "answer", "sufficient", "reason", "corrected"
QUESTION, COMMENT, PASSAGE = "question", "comment", "passage"
NAMES = {ANSWER, SUFFICIENT, REASON, CORRECTED, QUESTION, COMMENT}
ANSWER_LABEL, YES, NO, BAD = "answer", "yes", "no", "bad"

_OPTIONS = {"Choices": "Choice", "Labels": "Label"}  # the tags of what a control offers


@dataclass(frozen=True)
class Control:
    """Something on the page that annotators answer with; a text area has no ``values``."""

    kind: str  # as results call it: choices, labels, textarea
    values: frozenset[str]


Controls = dict[str, Control]


def text() -> str:
    """The configuration that `curate annotate push` gives to a project."""
    return (Path(__file__).parent / "labelling.xml").read_text(encoding="utf-8")


def controls(config: str, where: str) -> Controls:
    """What a project's configuration offers, by name."""
    from lxml import etree

    try:
        # Of a server that may not be ours: no entities, nothing fetched.
        root = etree.fromstring(
            config.encode(), etree.XMLParser(resolve_entities=False, no_network=True)
        )
    except etree.XMLSyntaxError as error:
        raise UserError(f"{where}: its labelling configuration is not XML ({error})") from error
    found: Controls = {}
    for element in root.iter():
        if element.get("name") and element.get("toName"):
            options = element.iter(_OPTIONS.get(str(element.tag), "-"))
            values = [one.get("alias") or one.get("value") or "" for one in options]
            found[str(element.get("name"))] = Control(str(element.tag).lower(), frozenset(values))
    return found


def readable(config: str, where: str) -> Controls:
    """What annotations may hold: what the page offers, and what ours did when they were made."""
    ours, theirs = controls(text(), "labelling.xml"), controls(config, where)
    return theirs | {
        name: Control(own.kind, own.values | (theirs[name].values if name in theirs else set()))
        for name, own in ours.items()
    }


def changed(config: str, where: str) -> list[str]:
    """How a project's page differs from ours in what it offers; nothing where it does not."""
    ours, theirs = controls(text(), "labelling.xml"), controls(config, where)
    found = [f"'{name}' is gone" for name in ours.keys() - theirs.keys()]
    found += [f"'{name}' is new, and is not read" for name in theirs.keys() - ours.keys()]
    for name in ours.keys() & theirs.keys():
        gone = ours[name].values - theirs[name].values
        new = theirs[name].values - ours[name].values
        found += [f"'{name}' no longer offers {', '.join(sorted(gone))}"] if gone else []
        found += [f"'{name}' also offers {', '.join(sorted(new))}"] if new else []
    return sorted(found)


def check(config: str, where: str) -> None:
    """Raise `UserError` where nobody could say on a page what a label needs."""
    theirs = controls(config, where)
    lacking = [name for name in (SUFFICIENT, ANSWER) if name not in theirs]
    if SUFFICIENT in theirs and not theirs[SUFFICIENT].values >= {YES, NO}:
        lacking.append(f"{SUFFICIENT}: {YES} and {NO}")
    if lacking:
        raise UserError(
            f"{where}: its labelling page was changed and lacks {', '.join(lacking)}; "
            "`curate annotate push --reset-page` puts it back (annotations stay)"
        )
