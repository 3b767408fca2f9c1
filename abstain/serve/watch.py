"""The watch that runs beside the server: audits against the promise, and what follows from it."""

import asyncio
import logging

from abstain import drift
from abstain.drift import Watch
from abstain.serve.service import Service

log = logging.getLogger(__name__)

EVERY = 30.0  # seconds


def look(service: Service) -> Watch | None:
    """What the audits say now; None where nothing is calibrated."""
    calibration = service.cascade.answerer.calibration
    threshold = service.calibrated.value
    if calibration is None or threshold is None:
        return None
    policy = service.cascade.hash
    items = service.queue.items("answered", audited_under=policy)
    found = drift.audits(items, policy, calibration.right_f1)
    reference = calibration.details.get("reference") or ()
    return drift.watch(found, threshold, service.calibrated.guarantee, reference)


def act(service: Service, found: Watch) -> None:
    """Tighten while the promise is refuted, where the policy says so; the alarm is a log line."""
    service.metrics.watched(found)
    if found.state == "refuted":
        stricter = found.tighten_to if service.policy.tighten else None
        if not service.alarmed:
            log.error(
                "the guarantee is refuted: %d of %d audited answers are wrong, the risk is at least"
                " %.3f and not at most %.3f; %s; run `abstain recalibrate`",
                *(found.wrong, found.answered, found.low, found.target),
                "the policy raises no threshold" if stricter is None else "the threshold is raised",
            )
        service.alarmed = True
        if stricter is not None and service.cascade.threshold.value != stricter:
            service.tighten(stricter)
            log.error("the threshold is %.4f now, without a guarantee", stricter)
    elif service.cascade.threshold != service.calibrated:
        service.loosen()
        service.alarmed = False
        log.warning("the audits no longer refute the guarantee: the calibrated threshold is back")
    if found.shifted:
        log.warning("questions have changed: the confidence's stability index is %.2f", found.shift)


async def keep_watching(service: Service) -> None:
    """Look again and again, as long as the server runs."""
    while True:
        try:
            found = await asyncio.to_thread(look, service)
            if found is not None:
                act(service, found)
        except Exception:  # the next look may succeed: a watch that ends says nothing ever more
            log.exception("the audits could not be looked at")
        await asyncio.sleep(EVERY)
