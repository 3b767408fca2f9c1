"""What a model is asked to write: questions with answers, and questions without, by reason."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from curate.generate.llm.asking import Request

_SYSTEM = "You write questions for a reading test. Reply with JSON alone."
_PAIRS = (
    "Write {count} questions that the passage answers, each with its answer. The answer is copied "
    "from the passage word for word, as short as it can be. A question must make sense to someone "
    "who does not see the passage: it names what it is about, and does not say 'the passage'. It "
    "must not give its own answer away. Ask about different things.\n\nPassage:\n{context}"
)
_WITHOUT = (
    "Write {count} questions that the passage does not answer. {kind} They should be questions "
    "that someone who reads such pages would really ask, and sound like ones that the passage "
    "answers. Do not mention the passage.\n\nPassage:\n{context}"
)
# The reasons that a question can be written for, and what the model is told of each.
KINDS = {
    "evidence_missing": (
        "Each asks for a detail of something that the passage speaks of, where the passage does "
        "not tell this detail."
    ),
    "false_premise": (
        "Each takes something for granted that the passage contradicts or never says, so that "
        "there is no answer."
    ),
    "underspecified": (
        "Each leaves out which thing, time or case it means, so that the passage gives several "
        "possible answers and no definite one."
    ),
    "out_of_scope": "Each is about the same general field, but a subject that the passage lacks.",
}
_TOKENS_EACH = 96  # of a question, its answer, and the JSON around them
TEMPERATURE = 0.7  # a writer that always says the likeliest writes the same questions


class _Item(BaseModel):
    # Asked for without other fields; where some come all the same, what was paid for is read.
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    question: str


class _Pair(_Item):
    answer: str


def pairs(context: str, count: int, seed: int) -> Request:
    """Ask for answerable questions."""
    return _request(_PAIRS.format(count=count, context=context), _Pair, count, seed)


def without(context: str, reason: str, count: int, seed: int) -> Request:
    """Ask for questions that the passage does not answer, for one of `KINDS`."""
    text = _WITHOUT.format(count=count, kind=KINDS[reason], context=context)
    return _request(text, _Item, count, seed)


def _request(text: str, item: type[_Item], count: int, seed: int) -> Request:
    each = item.model_json_schema()
    each.pop("title")
    for value in each["properties"].values():
        value.pop("title")
    items = {"type": "array", "items": each, "minItems": 1, "maxItems": count}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"questions": items},
        "required": ["questions"],
        "additionalProperties": False,
    }
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]
    return Request(messages, 32 + count * _TOKENS_EACH, TEMPERATURE, seed, schema)


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Questions and answers of a reply; ValueError where it is not of the form asked for."""
    return [(one.question.strip(), one.answer.strip()) for one in _read(text, _Pair)]


def read_questions(text: str) -> list[str]:
    """Questions of a reply; ValueError where it is not of the form asked for."""
    return [one.question.strip() for one in _read(text, _Item)]


_Form = TypeVar("_Form", bound=_Item)


def _read(text: str, item: type[_Form]) -> list[_Form]:
    """The items that are whole: of a reply cut off at its longest, all but the last."""
    found: list[_Form] = []
    fault = "no questions"
    try:
        value = from_json(_bare(text), allow_partial=True)
        for one in value["questions"]:
            found.append(item.model_validate(one))
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        fault = str(error).replace("\n", " ")
    if not found:
        raise ValueError(f"not the JSON asked for ({fault}): {text[:100]!r}")
    return found


def _bare(text: str) -> str:
    """Without the fence that servers that know no schema let models put around JSON."""
    text = text.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    return text
