"""The router: what is done with a question, by a policy's rules, on a threshold that they obey.

It asks for what it needs and never fetches it: whoever runs it answers one `Wanted` after the
other, all questions at once (`abstain/cascade.py`) or each as it comes (`abstain/serve`).
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from abstain.policy import Action, RoutingPolicy, Rule

SECOND = "second"  # of `Look.model`
Fetch = Literal["answer", "retrieve", "second_model"]


@dataclass(frozen=True)
class Threshold:
    """What an answer's confidence must reach, and whether that carries a guarantee."""

    value: float | None  # None: not calibrated, the model's own word counts
    guarantee: dict[str, Any] | None = None

    def promise(self) -> str:
        """The guarantee in words, or that there is none."""
        if self.guarantee is None:
            return "no guarantee"
        risk, delta = self.guarantee["target_risk"], self.guarantee["delta"]
        tries = self.guarantee["certifications"]
        void = f"; not kept: it is number {tries} tried on the same rows" if tries > 1 else ""
        if delta is None:
            return (
                f"on average, at most {100 * risk:g}% of all questions are answered wrongly{void}"
            )
        # SGR's search is not quite paid for: see `abstain/threshold.py`.
        nearly = ", nearly" if self.guarantee.get("procedure") == "sgr" else ""
        return (
            f"of the questions answered, at most {100 * risk:g}% are wrong, "
            f"with probability {100 * (1 - delta):g}%{nearly}{void}"
        )


@dataclass(frozen=True)
class Verdict:
    """Whether an answer passes the threshold, by which rule, on which numbers."""

    passes: bool
    rule: str
    why: str


def verdict(
    abstained: bool, confidence: float | None, threshold: Threshold, head_declines: bool = False
) -> Verdict:
    """No where head or model says that the context falls short, or confidence is too low.

    The head speaks first: what it declines need not be answered at all.
    """
    if head_declines:
        why = "the sufficiency head reads that the context does not tell"
        return Verdict(False, "head_declines", why)
    if abstained:
        return Verdict(False, "model_abstained", "the model says the context does not tell")
    if threshold.value is None:
        return Verdict(True, "uncalibrated", "not calibrated: the model's own word counts")
    if confidence is None:
        return Verdict(False, "not_calibrated", "nothing tells how sure this answer is")
    numbers = f"confidence {confidence:.3f}, threshold {threshold.value:.3f}"
    why = f"{numbers} ({threshold.promise()})"
    if confidence >= threshold.value:
        return Verdict(True, "at_or_above_threshold", why)
    return Verdict(False, "below_threshold", why)


@dataclass(frozen=True)
class Look:
    """One answer of one model to the question from one context, and how sure it is."""

    model: Literal["own", "second"]
    context: str
    text: str
    abstained: bool
    confidence: float | None  # None where the head declined, or nobody calibrated this model
    p_sufficient: float | None = None
    head_declines: bool = False
    reason: str | None = None  # why the context would fall short
    signals: dict[str, float] = field(default_factory=dict)
    retrieved: tuple[str, ...] = ()  # where its passages come from
    may_answer: bool = False  # a rule would answer with it, if the threshold lets it pass
    milliseconds: float = 0.0
    tokens: int = 0  # generated

    @property
    def said_no(self) -> bool:
        """Whether the model, or its head, says that the context does not tell."""
        return self.abstained or self.head_declines


@dataclass(frozen=True)
class Wanted:
    """What the router needs next."""

    fetch: Fetch
    question: str
    context: str


@dataclass(frozen=True)
class Found:
    """A retriever's passages, best first, and where each comes from."""

    passages: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """What could not be fetched, and why: the rules below go on without it."""

    why: str


Fetched = Look | Found | Failed


@dataclass(frozen=True)
class Decision:
    """What is done with a question, by which rule, on which numbers."""

    action: Action
    rule: str
    why: str
    confidence: float | None
    threshold: float | None


@dataclass(frozen=True)
class Outcome:
    """A decision with all that led to it."""

    decision: Decision
    looks: tuple[Look, ...]
    cost: float = 0.0
    notes: tuple[str, ...] = ()  # what failed, or was not possible any more

    @property
    def latest(self) -> Look | None:
        """The last look at the question; None where the model itself failed."""
        return self.looks[-1] if self.looks else None


class OutOfTime(Exception):
    """Thrown into `route`'s generator by who runs it, when a question's time is over."""


Steps = Generator[Wanted, Fetched, Outcome]
PLAIN = RoutingPolicy()
BETWEEN = "\n\n"


def route(policy: RoutingPolicy, threshold: Threshold, question: str, context: str) -> Steps:
    """Decide one question: yields what it wants, is sent what was found, returns the outcome.

    It may be thrown `OutOfTime`, and then returns at once, without an answer.
    """
    return _Routing(policy, threshold, question, context).steps()


class _Routing:
    """One question on its way through the rules."""

    def __init__(
        self, policy: RoutingPolicy, threshold: Threshold, question: str, context: str
    ) -> None:
        self.policy = policy
        self.threshold = threshold
        self.question = question
        self.context = context
        self.topics = policy.topics_of(question)
        self.looks: list[Look] = []
        self.notes: list[str] = []
        self.cost = 0.0
        self.left = {
            "retrieve": policy.budget.retrievals,
            "second_model": policy.budget.second_model,
        }

    def steps(self) -> Steps:
        try:
            return (yield from self._decide())
        except OutOfTime as over:
            return self._given_up("out_of_time", str(over))

    def _decide(self) -> Steps:
        yield from self._look("answer", self.context)
        if not self.looks:
            return self._given_up("model_failed", self.notes[-1])
        while True:
            rule = self._deciding()
            if rule is None:
                return self._declined()
            if rule.action == "answer":
                return self._answered(rule)
            if rule.action == "retrieve":
                yield from self._retrieve()
            elif rule.action == "second_model":
                yield from self._second()
            else:
                return self._outcome(rule.action, self._name(rule), self._why(rule))

    def _deciding(self) -> Rule | None:
        """The first rule that holds and is possible now; marks what might be answered."""
        for rule in self.policy.rules:
            if not self._holds(rule):
                continue
            if rule.action == "answer":
                self.looks[-1] = replace(self.looks[-1], may_answer=True)
                if self._verdict().passes:
                    return rule
            elif self._possible(rule.action):
                return rule
        return None

    def _holds(self, rule: Rule) -> bool:
        when, look = rule.when, self.looks[-1]
        numbers = {**look.signals, "confidence": look.confidence, "cost": self.cost}
        numbers["p_sufficient"] = look.p_sufficient
        ranges = {**when.signals, "confidence": when.confidence, "cost": when.cost}
        ranges["p_sufficient"] = when.p_sufficient
        for name, bounds in ranges.items():
            value = numbers.get(name)
            if bounds is not None and (value is None or not bounds.holds(value)):
                return False
        if when.said_no is not None and when.said_no != look.said_no:
            return False
        if when.has_context is not None and when.has_context != bool(look.context.strip()):
            return False
        if when.reason and look.reason not in when.reason:
            return False
        return not when.topic or bool(self.topics & set(when.topic))

    def _possible(self, action: Action) -> bool:
        if action not in self.left:
            return True
        limit, costs = self.policy.budget.cost, self.policy.costs
        price = costs.retrieve + costs.model if action == "retrieve" else costs.second_model
        return bool(self.left[action]) and (limit is None or self.cost + price <= limit)

    def _retrieve(self) -> Generator[Wanted, Fetched, None]:
        self.left["retrieve"] -= 1
        self.cost += self.policy.costs.retrieve
        context = self.looks[-1].context
        found = yield Wanted("retrieve", self.question, context)
        if isinstance(found, Failed):
            self.notes.append(f"retrieve: {found.why}")
            self.left["retrieve"] = 0
            return
        assert isinstance(found, Found)  # noqa: S101 - what is sent is what was wanted
        new = [
            (passage, source)
            for passage, source in zip(found.passages, found.sources, strict=True)
            if passage.strip() and passage.strip() not in context
        ]
        if not new:
            self.notes.append("retrieve: nothing new was found")
            self.left["retrieve"] = 0
            return
        passages, sources = zip(*new, strict=True)
        # What was retrieved first: were the whole too long, what was given is there already.
        longer = BETWEEN.join([*passages, *([context] if context.strip() else [])])
        yield from self._look("answer", longer, sources)

    def _second(self) -> Generator[Wanted, Fetched, None]:
        self.left["second_model"] = 0
        yield from self._look("second_model", self.looks[-1].context)

    def _look(
        self, fetch: Fetch, context: str, sources: tuple[str, ...] = ()
    ) -> Generator[Wanted, Fetched, None]:
        costs = self.policy.costs
        self.cost += costs.second_model if fetch == "second_model" else costs.model
        look = yield Wanted(fetch, self.question, context)
        if isinstance(look, Failed):
            self.notes.append(f"{fetch}: {look.why}")
            return
        assert isinstance(look, Look)  # noqa: S101 - what is sent is what was wanted
        self.looks.append(replace(look, retrieved=sources))

    def _verdict(self) -> Verdict:
        look = self.looks[-1]
        return verdict(look.abstained, look.confidence, self.threshold, look.head_declines)

    def _answered(self, rule: Rule) -> Outcome:
        found = self._verdict()
        return self._outcome("answer", rule.name or found.rule, found.why)

    def _declined(self) -> Outcome:
        found = self._verdict()
        if found.passes:
            return self._outcome("decline", "no_rule", "no rule answers this")
        return self._outcome("decline", found.rule, found.why)

    def _given_up(self, rule: str, why: str) -> Outcome:
        """Without an answer to judge: to a person, where the policy has any to ask."""
        to_person = any(one.action == "escalate" for one in self.policy.rules)
        return self._outcome("escalate" if to_person else "decline", rule, why)

    def _name(self, rule: Rule) -> str:
        return rule.name or f"rule {self.policy.rules.index(rule) + 1}"

    def _why(self, rule: Rule) -> str:
        found, when = self._verdict(), rule.when.explain()
        parts = [] if found.passes else [found.why]
        parts += [f"because {when}"] if when else []
        return "; ".join(parts) or "the rule always holds"

    def _outcome(self, action: Action, rule: str, why: str) -> Outcome:
        confidence = self.looks[-1].confidence if self.looks else None
        decision = Decision(action, rule, why, confidence, self.threshold.value)
        return Outcome(decision, tuple(self.looks), self.cost, tuple(self.notes))


def message(policy: RoutingPolicy, outcome: Outcome, phrase: str) -> str:
    """What the person who asked is told; ``phrase`` is the run's abstention phrase."""
    action, latest = outcome.decision.action, outcome.latest
    if action == "answer" and latest is not None:
        return latest.text
    said = policy.messages
    if action == "clarify":
        reason = latest.reason if latest is not None else None
        return said.clarify_by_reason.get(reason or "", said.clarify)
    if action == "escalate":
        return said.escalate
    return said.decline or phrase
