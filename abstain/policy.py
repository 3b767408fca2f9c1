"""A routing policy: what is done with each question, as a typed YAML file that a person can read.

Rules are tried from the top; the first whose conditions hold and whose action is possible decides.
An ``answer`` rule answers only what passes the run's threshold: no rule can lift it. ``retrieve``
and ``second_model`` look at the question once more, after which the rules are tried again; when
they are not possible any more (their budget is spent, nothing new was found, they failed), the
rules below them decide. Where no rule decides, the question is declined.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from curate import typed_yaml
from curate.record import REASONS, digest

Action = Literal["answer", "clarify", "retrieve", "second_model", "escalate", "decline"]
ACTIONS: tuple[Action, ...] = get_args(Action)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Settings):
    """``at_least`` ≤ value < ``below``; either may be left open."""

    at_least: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies in it."""
        above = self.at_least is None or value >= self.at_least
        return above and (self.below is None or value < self.below)

    def __str__(self) -> str:
        bounds = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"below {self.below:g}"] if self.below is not None else []
        return " and ".join(bounds) or "any"


class When(_Settings):
    """Conditions that must all hold; what is not named does not matter."""

    confidence: Range | None = None  # P(right) of the latest answer; one never given has none
    p_sufficient: Range | None = None
    reason: list[str] = Field(default_factory=list)  # any of these is predicted
    signals: dict[str, Range] = Field(default_factory=dict)
    topic: list[str] = Field(default_factory=list)  # the question is of any of these
    said_no: bool | None = None  # the model, or its sufficiency head, says it is not told
    has_context: bool | None = None
    cost: Range | None = None  # spent on this question so far

    @field_validator("reason")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in set(names) - set(REASONS):
            raise ValueError(f"no reason is called '{name}'; there are {', '.join(REASONS)}")
        return names

    def explain(self) -> str:
        """The conditions in words."""
        parts = [
            f"{name.replace('_', ' ')} is {bounds}"
            for name, bounds in (
                ("confidence", self.confidence),
                ("p_sufficient", self.p_sufficient),
                ("cost", self.cost),
                *self.signals.items(),
            )
            if bounds is not None
        ]
        if self.reason:
            parts.append(f"the likely reason is {' or '.join(self.reason)}")
        if self.topic:
            parts.append(f"the question is about {' or '.join(self.topic)}")
        if self.said_no is not None:
            says = "does not tell" if self.said_no else "tells"
            parts.append(f"the model says that the context {says}")
        if self.has_context is not None:
            parts.append(f"there is {'a' if self.has_context else 'no'} context")
        return ", and ".join(parts)


class Rule(_Settings):
    """What is done where its conditions hold."""

    action: Action
    when: When = When()
    name: str = ""


class Bm25Retriever(_Settings):
    """Passages of a folder of documents (.txt, .md, .html), by their words (BM25)."""

    kind: Literal["bm25"]
    folder: Path
    passages: int = Field(3, ge=1, le=20)


class HttpRetriever(_Settings):
    """An address that takes ``{"question", "context", "k"}`` and gives ``{"passages": [text]}``."""

    kind: Literal["http"]
    url: str = Field(pattern=r"^https?://")
    passages: int = Field(3, ge=1, le=20)
    seconds: float = Field(5.0, gt=0)  # that it may take
    # What names the state of its documents, since a guarantee covers one: change it with them.
    version: str = ""


class SecondModel(_Settings):
    """Any OpenAI-compatible endpoint with log-probabilities; its key in ``OPENAI_API_KEY``."""

    url: str = Field(pattern=r"^https?://")
    model: str = Field(min_length=1)
    seconds: float = Field(30.0, gt=0)


class Budget(_Settings):
    """What one question may use up."""

    retrievals: int = Field(1, ge=0, le=5)
    second_model: int = Field(1, ge=0, le=1)
    seconds: float = Field(30.0, gt=0)  # what is not decided by then is not answered
    cost: float | None = Field(None, ge=0)


class Costs(_Settings):
    """Of one use of each, in any one unit."""

    model: float = Field(0.0, ge=0)
    retrieve: float = Field(0.0, ge=0)
    second_model: float = Field(1.0, ge=0)


CLARIFY = {
    "no_context": "Which document or passage is this about? I was given none.",
    "irrelevant_context": "What I was given is about something else. Where should this be written?",
    "underspecified": "This can be meant in several ways. Which one do you mean?",
    "false_premise": "The question takes something for granted that I do not find. Is it so?",
    "conflicting_context": "What I was given contradicts itself here. Which part should count?",
    "partial_evidence": "I find a part of what this needs. Can you tell or show me more about it?",
    "out_of_scope": "This is outside what I was given. What would you like to know about it?",
}


class Messages(_Settings):
    """What is said instead of an answer."""

    decline: str = ""  # empty: the run's abstention phrase
    escalate: str = "I do not know this for sure. I have passed your question on to a person."
    clarify: str = "I cannot tell from what I was given. Can you give me more to go by?"
    clarify_by_reason: dict[str, str] = Field(default_factory=lambda: dict(CLARIFY))


class RoutingPolicy(_Settings):
    """The whole file."""

    name: str = "answer or decline"
    rules: list[Rule] = Field(default_factory=lambda: [Rule(action="answer")], min_length=1)
    topics: dict[str, list[str]] = Field(default_factory=dict)  # words or phrases of each
    retriever: Annotated[Bm25Retriever | HttpRetriever, Field(discriminator="kind")] | None = None
    second_model: SecondModel | None = None
    budget: Budget = Budget()
    costs: Costs = Costs()
    messages: Messages = Messages()
    # Of all questions, whatever becomes of them, put before a person too: what recalibrates.
    audit_share: float = Field(0.0, ge=0, le=1)
    stream: bool = True  # clients may have an answer in pieces, once it is decided
    tighten: bool = True  # raise the threshold while audits refute the guarantee

    @model_validator(mode="after")
    def _complete(self) -> "RoutingPolicy":
        used = {rule.action for rule in self.rules}
        for action, needed in (("retrieve", "retriever"), ("second_model", "second_model")):
            if action in used and getattr(self, needed) is None:
                raise ValueError(f"a rule says {action}, and there is no '{needed}:' to ask")
        for rule in self.rules:
            for topic in set(rule.when.topic) - set(self.topics):
                raise ValueError(f"a rule is for the topic '{topic}', which 'topics:' has not")
        return self

    def topics_of(self, question: str) -> set[str]:
        """The topics whose words or phrases a question holds, case aside."""
        return {
            name
            for name, phrases in self.topics.items()
            if any(
                re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", question, re.IGNORECASE)
                for phrase in phrases
            )
        }

    @property
    def is_plain(self) -> bool:
        """Whether it answers what the run's threshold alone lets pass, no more and no less.

        What is done with the rest is no matter of the guarantee.
        """
        first = self.rules[0]
        again = any(rule.action in ("retrieve", "second_model") for rule in self.rules)
        return first.action == "answer" and first.when == When() and not again

    def decisive(self, documents: str) -> str:
        """A hash of all that decides which questions are answered, and from what.

        Empty for a plain policy. ``documents`` names the state of what the retriever finds.
        """
        if self.is_plain:
            return ""
        kept = self.model_dump(
            mode="json",
            include={"rules", "topics", "retriever", "second_model", "costs", "budget"},
        )
        for rule in kept["rules"]:
            del rule["name"]
        if self.retriever is not None and self.retriever.kind == "bm25":
            del kept["retriever"]["folder"]  # where its documents lie does not matter, they do
        return digest(repr(kept), documents)

    def explain(self) -> str:
        """The policy in words, a line a rule."""
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [f"policy '{self.name}': the first rule that holds decides"]
        for number, rule in enumerate(self.rules, 1):
            when = rule.when.explain()
            name = f" ({rule.name})" if rule.name else ""
            then = f"if {when}: " if when else ""
            lines.append(f"{number}. {then}{self._told(rule.action)}{name}")
        lines.append("otherwise: decline")
        lines += [f"topic {name}: {', '.join(words)}" for name, words in self.topics.items()]
        cost = "" if self.budget.cost is None else f", a cost of {self.budget.cost:g}"
        lines.append(f"one question may take {self.budget.seconds:g} seconds{cost}")
        if self.audit_share:
            lines.append(f"{self.audit_share:.1%} of all questions are put before a person too")
        return lines

    def _told(self, action: Action) -> str:
        if action == "answer":
            return "answer, if the threshold is passed; else go on"
        if action == "retrieve" and self.retriever is not None:
            where: Any = getattr(self.retriever, "folder", None) or getattr(
                self.retriever, "url", None
            )
            times = self.budget.retrievals
            return (
                f"retrieve {self.retriever.passages} passages from {where} and look again, at most "
                f"{times} time{'s' if times > 1 else ''}; else go on"
            )
        if action == "second_model" and self.second_model is not None:
            return f"ask {self.second_model.model} at {self.second_model.url}; else go on"
        return {
            "clarify": "ask back for what is missing",
            "escalate": "put it in the queue for a person",
        }.get(action, action)


def read(path: Path) -> RoutingPolicy:
    """A policy from its file; raises `UserError` that names every mistake with its line.

    A folder of documents is meant relative to the file.
    """
    policy = typed_yaml.load(path, RoutingPolicy)
    if isinstance(policy.retriever, Bm25Retriever):
        folder = path.parent / policy.retriever.folder
        retriever = policy.retriever.model_copy(update={"folder": folder})
        policy = policy.model_copy(update={"retriever": retriever})
    return policy
