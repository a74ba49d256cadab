"""Windows of budgets, and a clock that no jump hurries.

A window has the database's time, so that all gateways mean the same day. Its end is then kept on the boot clock, which
runs on while the machine sleeps and which nobody can set.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from quantgate.serve_config import WINDOWS

SLACK_S = 30.0  # the database's time may be so far ahead of what has passed here
DRIFT = 1e-3  # and its clock so much faster


def boot_s() -> float:
    """Seconds since this machine started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def span_of(window: str, at: float) -> tuple[str, float]:
    """The name of the window that ``at`` (seconds since 1970) lies in, and its end.

    >>> span_of("day", 86400 * 3 + 5.0), span_of("ever", 0.0), span_of("month", 86400 * 40)[0]
    (('day:3', 345600), ('ever', inf), 'month:1970-02')
    """
    if window == "ever":
        return "ever", math.inf
    if window == "month":
        day = datetime.fromtimestamp(at, UTC)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
        return f"month:{day:%Y-%m}", following.timestamp()
    number = int(at // WINDOWS[window])
    return f"{window}:{number}", (number + 1) * WINDOWS[window]


def window_told(span: str) -> str:
    """A window as people say it, in UTC.

    >>> window_told("day:20779"), window_told("min:29922446"), window_told("month:2026-11"), window_told("ever")
    ('2026-11-22', '2026-11-22 11:26', '2026-11', 'all')
    """
    window, _, number = span.partition(":")
    if window not in ("min", "hour", "day"):
        return number or "all"
    begins = datetime.fromtimestamp(int(number) * WINDOWS[window], UTC)
    return f"{begins:%F}" if window == "day" else f"{begins:%F %R}"


class SteadyClock:
    """The database's time, as long as it runs about as fast as this machine's boot clock.

    A clock that was set forward would hand out tomorrow's budget: then what has passed here counts, until a restart.
    A clock that was set back would hand out yesterday's: then time stands until it catches up.
    """

    def __init__(self) -> None:
        self._base: tuple[float, float] | None = None
        self._last = 0.0
        self.trouble: str | None = None

    def read(self, told_s: float, boot: float) -> float:
        """``told_s`` by the database, asked when the boot clock was ``boot``."""
        if self._base is None:
            self._base = (told_s, boot)
        passed = boot - self._base[1]
        latest = self._base[0] + passed * (1 + DRIFT) + SLACK_S
        found = told_s
        self.trouble = None
        if told_s > latest:
            found = self._base[0] + passed
            self.trouble = f"the database's clock jumped ahead by {told_s - found:.0f} s; budgets keep the old time"
        elif told_s < self._last - SLACK_S:
            self.trouble = f"the database's clock jumped back by {self._last - told_s:.0f} s; budgets wait for it"
        self._last = max(self._last, found)
        return self._last
