"""How often a server may be asked, and when it wants to be asked again."""

import asyncio
import email.utils
import time
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Pace:
    """When each host may be asked next: one request every ``delay`` seconds, later if it says."""

    delay: float
    _next: dict[str, float] = field(default_factory=dict)
    _slower: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def slow_down(self, host: str, delay: float) -> None:
        """Take the host's own wish where it is the longer one."""
        self._slower[host] = max(self._slower[host], delay)

    def pause(self, host: str, seconds: float) -> None:
        """Ask the host nothing for some seconds."""
        self._next[host] = max(self._next.get(host, 0), time.monotonic() + seconds)

    async def turn(self, host: str) -> None:
        """Wait until it is one's turn with the host."""
        while (wait := self._next.get(host, 0) - time.monotonic()) > 0:
            await asyncio.sleep(wait)  # a pause may have been called meanwhile: look again
        self._next[host] = time.monotonic() + max(self.delay, self._slower[host])


def retry_after(value: str) -> float | None:
    """Seconds that a server asks us to wait: a number, or a date; None where it says neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
