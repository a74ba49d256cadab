"""Service objectives: which quantile of which latency may be how long; and what is proven about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from quantgate.errors import UsageError, hint
from quantgate.hardware import quantities
from quantgate.hardware.quantities import told_seconds
from quantgate.loadtest import Timed
from quantgate.records import Record
from quantgate.stats import Verdict
from quantgate.stats.quantiles import Quantile, ranks

Latency = Literal["ttft", "tpot", "e2e", "gap"]
LATENCIES: tuple[Latency, ...] = ("ttft", "tpot", "e2e", "gap")
LONGEST_S = 86_400.0
ALPHA = 0.05  # of every interval
FORM = re.compile(r"(\w+)[-_ ]?p(\d{1,2}(?:\.\d+)?)\s*(?:=|<=?|\s)\s*(.+)")


class Objective(Record):
    """The ``q`` quantile of a latency is at most ``most_s`` seconds."""

    latency: Latency
    q: float
    most_s: float

    @property
    def label(self) -> str:
        """``ttft p95 <= 300 ms``."""
        return f"{self.latency} p{100 * self.q:g} <= {shown(self.most_s)}"


class Kept(Record):
    """What a run says about one objective."""

    objective: Objective
    found: Quantile | None  # None: nothing of it could be measured
    verdict: Verdict
    because: str


def shown(seconds: float | None) -> str:
    """A time with few digits.

    >>> shown(0.0123), shown(1.5), shown(None)
    ('12.3 ms', '1.50 s', 'unknown')
    """
    return "unknown" if seconds is None else told_seconds(seconds)


def seconds_of(text: str, what: str) -> float:
    """``300ms``, ``60s``, ``2 min`` as seconds; raises UsageError for what is no time, is not above 0, or absurd."""
    try:
        return quantities.seconds(text, LONGEST_S)
    except ValueError as problem:
        raise UsageError(f"{what}: {problem}") from None


def parse_objective(text: str) -> Objective:
    """``ttft-p95=300ms``. Raises UsageError with the nearest known latency.

    >>> parse_objective("tpot-p95=30ms")
    Objective(latency='tpot', q=0.95, most_s=0.03)
    """
    found = FORM.fullmatch(text.strip())
    if not found:
        raise UsageError(f"objective '{text}': expected latency, percentile and time, such as ttft-p95=300ms")
    name, percent = found[1].lower(), float(found[2])
    if name not in LATENCIES:
        raise UsageError(f"objective '{text}': no latency '{name}'; {hint(name, LATENCIES)}")
    if not 0 < percent < 100:
        raise UsageError(f"objective '{text}': p{found[2]} is no percentile; expected more than 0 and less than 100")
    return Objective(latency=name, q=percent / 100, most_s=seconds_of(found[3], f"objective '{text}'"))


def keeps(one: Timed, objectives: Sequence[Objective]) -> bool | None:
    """Whether one request was within every objective's time; None where that is not known, a lost one was not.

    Goodput counts requests, so the percentiles play no part (Zhong et al., DistServe, arXiv 2401.09670, section 3).
    """
    if one.lost:
        return False
    values = [latency_of(one, objective.latency) for objective in objectives]
    if any(value is not None and value > objective.most_s for value, objective in zip(values, objectives, strict=True)):
        return False
    unknown = any(
        value is None and not _nothing_to_wait_for(one, objective.latency)
        for value, objective in zip(values, objectives, strict=True)
    )
    return None if unknown else True


def latency_of(one: Timed, latency: Latency) -> float | None:
    """Of one request; its longest gap between pieces is its ``gap``."""
    if latency == "gap":
        return max(one.gaps_s, default=None)
    return {"ttft": one.ttft_s, "tpot": one.tpot_s, "e2e": one.e2e_s}[latency]


def _nothing_to_wait_for(one: Timed, latency: Latency) -> bool:
    """An answer of one token has no second one to wait for; an empty one has no text."""
    if latency == "tpot":
        return one.tokens is not None and one.tokens < 2
    if latency == "gap":
        return one.ttft_s is not None
    return latency == "ttft" and one.tokens == 0


def judge(objective: Objective, found: Quantile | None, doubt: str, alpha: float = ALPHA) -> Kept:
    """Pass when the whole interval is within, fail when all of it is beyond, else inconclusive.

    ``doubt`` is why the run decides nothing (partial, or not valid); then neither is claimed. The interval of
    ``found`` is at 1 - ``alpha``.
    """

    def say(verdict: Verdict, because: str) -> Kept:
        return Kept(objective=objective, found=found, verdict=verdict, because=because)

    if found is None:
        return say("inconclusive", "it could not be measured")
    if doubt:
        return say("inconclusive", doubt)
    share, most = f"p{100 * objective.q:g}", objective.most_s
    if found.high is not None and found.high <= most:
        return say("pass", f"{share} is at most {shown(found.high)}")
    if found.low is not None and found.low > most:
        return say("fail", f"{share} is at least {shown(found.low)}")
    if ranks(found.n, found.q, alpha, found.dependence)[0] > found.n - found.beyond:
        return say("fail", f"{found.beyond} of {found.n} requests never answered")
    if found.high is None:
        alike = f", which wait alike and count as {found.n / found.dependence:.0f}," if found.dependence > 1 else ""
        lost = f" ({found.beyond} lost)" if found.beyond else ""
        return say("inconclusive", f"{found.n} requests{lost}{alike} leave {share} open above; ask for more")
    return say(
        "inconclusive", f"{share} lies between {shown(found.low)} and {shown(found.high)}; ask for more requests"
    )
