"""What one person says of one row: the shape that every tool's answers are brought into."""

from dataclasses import dataclass

from curate.record import Row

Span = tuple[str, int]  # the text, and where it begins in the context; `NOT_A_SPAN` for own words


@dataclass(frozen=True)
class Said:
    """A person's judgement of a row. ``sufficient`` is None where they only call the row bad."""

    sufficient: bool | None
    answers: tuple[Span, ...] = ()
    reason: str = ""
    bad: bool = False  # the question makes no sense
    comment: str = ""


def is_right(said: Said, gold: Row) -> bool:
    """Whether someone said of a row what is known of it, its answer too."""
    from curate.insufficient.readers import agree

    if said.sufficient != gold.sufficient:
        return False
    return not gold.sufficient or any(agree(text, gold.answers) for text, _ in said.answers)
