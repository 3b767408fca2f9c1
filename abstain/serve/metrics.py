"""What Prometheus reads: decisions, seconds, what waits for model and people, the guarantee."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from abstain.drift import Watch
    from abstain.serve.service import Service

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)


class Metrics:
    """The numbers of one service, in a registry of its own."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self.registry = CollectorRegistry()
        r = self.registry
        self._decisions = Counter(
            "abstain_decisions", "Questions decided", ["action", "rule"], registry=r
        )
        self._seconds = Histogram(
            "abstain_decision_seconds", "From question to decision", registry=r, buckets=_SECONDS
        )
        self._fetches = Histogram(
            "abstain_fetch_seconds", "Of a retriever or second model", ["what"], registry=r
        )
        self._refused = Counter("abstain_refused", "Questions refused, by why", ["why"], registry=r)
        self._gauges()

    def _gauges(self) -> None:
        """What is read off the service when it is asked for."""
        service, r = self._service, self.registry
        read = {
            "abstain_waiting": ("Questions before the model", lambda: service.batcher.waiting),
            "abstain_batches": ("Batches answered", lambda: service.batcher.batches),
            "abstain_batched_questions": ("Questions in them", lambda: service.batcher.questions),
            "abstain_threshold": (
                "The threshold in force; above 1 nothing is answered",
                lambda: service.cascade.threshold.value or 0.0,
            ),
            "abstain_guaranteed": (
                "1 where answers carry the guarantee",
                lambda: float(service.cascade.threshold.guarantee is not None),
            ),
        }
        for name, (what, value) in read.items():
            Gauge(name, what, registry=r).set_function(value)
        self._queue = Gauge("abstain_queue", "Questions before people", ["status"], registry=r)
        self._audits = Gauge("abstain_audits", "Of a uniform sample", ["what"], registry=r)
        self._risk = Gauge(
            "abstain_audited_risk", "Bounds that hold at all times", ["bound"], registry=r
        )
        self._refuted = Gauge("abstain_guarantee_refuted", "1: the alarm", registry=r)
        self._shift = Gauge("abstain_score_shift", "Population stability index", registry=r)

    def decided(self, entry: dict[str, Any]) -> None:
        """Count a decision."""
        self._decisions.labels(entry["action"], entry["rule"]).inc()
        self._seconds.observe(entry["milliseconds"] / 1000)

    def watched(self, found: "Watch") -> None:
        """Take in what the audits say."""
        for what in ("audited", "answered", "wrong"):
            self._audits.labels(what).set(getattr(found, what))
        self._risk.labels("low").set(found.low)
        self._risk.labels("high").set(found.high)
        self._refuted.set(found.state == "refuted")
        self._shift.set(found.shift or 0.0)

    def refused(self, why: str) -> None:
        """Count a question that was turned away."""
        self._refused.labels(why).inc()

    @contextmanager
    def fetching(self, what: str) -> Iterator[None]:
        """Time what somebody else answers."""
        started = time.monotonic()
        yield
        self._fetches.labels(what).observe(time.monotonic() - started)

    def text(self) -> bytes:
        """In Prometheus' format."""
        for status, count in self._service.queue.counts().items():
            self._queue.labels(status).set(count)
        return generate_latest(self.registry)
