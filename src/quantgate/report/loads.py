"""A load test in the terminal: latencies with their intervals, where the time goes, what the arms differ by."""

from __future__ import annotations

from rich.console import Console

from quantgate.loadtest.measure import QUANTILES, Measured
from quantgate.loadtest.objectives import Latency, shown
from quantgate.loadtest.result import ArmResult, LoadResult, PairResult
from quantgate.report.tables import plain_table
from quantgate.stats.quantiles import Quantile, Ratio

STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}
NAMES: dict[Latency, str] = {"ttft": "first token", "tpot": "a token", "e2e": "whole answer", "gap": "longest gap"}


def interval(found: Quantile | None) -> str:
    """The value, and where the truth lies, in one unit; ``?`` where nothing bounds it.

    >>> interval(Quantile(q=0.5, n=9, value=0.1, low=0.05, high=None))
    '100 [50, ?] ms'
    """
    if found is None:
        return "unknown"
    largest = max([one for one in (found.value, found.low, found.high) if one is not None], default=0.0)
    scale, unit = (1.0, "s") if largest >= 1 else (1e3, "ms")

    def text(seconds: float | None, missing: str) -> str:
        return missing if seconds is None else f"{seconds * scale:.3g}" if seconds * scale >= 0.001 else "0"

    return f"{text(found.value, 'never')} [{text(found.low, '?')}, {text(found.high, '?')}] {unit}"


def ratio_text(one: Ratio) -> str:
    """``0.81 [0.77, 0.86]``."""
    if one.value is None:
        return "unknown"
    limits = "" if one.low is None or one.high is None else f" [{one.low:.2f}, {one.high:.2f}]"
    return f"{one.value:.2f}{limits}"


def place(one: ArmResult | PairResult) -> str:
    """``8/s``, or ``8/s, 4 at a time``."""
    return f"{one.rate:.4g}/s" + ("" if one.limit is None else f", {one.limit} at a time")


def show_load(result: LoadResult, console: Console) -> None:
    """Every arm at every rate, then what they say together; the verdict comes last."""
    for one in result.results:
        _latencies(one, console)
        _throughput(one.measured, console)
        _stages(one.measured, console)
        _batches(one.measured, console)
    for where in dict.fromkeys(place(pair) for pair in result.pairs):
        console.print(f"{result.arms[1]} over {result.arms[0]} at {where}")
        table = plain_table("below 1 is faster", ("p50", "p95"), "right")
        for pair in (one for one in result.pairs if place(one) == where):
            table.add_row(NAMES[pair.latency], *(ratio_text(one) for one in pair.ratios))
        console.print(table)
    for arm, knee in result.knees.items():
        console.print(f"{arm}: {knee.sentence}")
    for policy in result.policies:
        console.print(policy.sentence)
    for note in result.notes:
        console.print(f"note: {note}", style="dim")
    console.print(result.sentence, style=STYLES.get(result.verdict or "", "bold"))


def _latencies(one: ArmResult, console: Console) -> None:
    console.print(f"{one.arm} at {place(one)}", style="bold")
    table = plain_table("latency", ("p50", "p95", "p99"), "right")
    for latency, name in NAMES.items():
        table.add_row(name, *(interval(one.measured.at(latency, q)) for q in QUANTILES))
    console.print(table)


def _throughput(found: Measured, console: Console) -> None:
    good, valid = found.goodput, found.validity
    tokens = "unknown" if found.token_rate is None else f"{found.token_rate:.1f}"
    parts = [
        f"{found.sent} sent, {found.answered} answered, {found.lost} lost",
        f"{found.request_rate:.2f} requests/s, {tokens} tokens/s",
    ]
    if good is not None and good.share is not None and good.low is not None and good.high is not None:
        limits = f"[{100 * good.low:.1f}, {100 * good.high:.1f}]"
        parts.append(f"within the objectives {100 * good.share:.1f} {limits} %, {good.rate or 0:.2f}/s")
    held = f"{100 * valid.achieved_rate / valid.asked_rate:.2f} %" if valid.asked_rate else "unknown"
    parts.append(f"rate held {held}, lag p99 {shown(valid.lag_p99_s)}")
    console.print("; ".join(parts))
    for why, count in found.why_lost.items():
        console.print(f"lost {count}: {why}")


def _stages(found: Measured, console: Console) -> None:
    known = [f"{one.stage} {shown(one.p95_s)}" for one in found.stages if one.reported]
    unknown = [one.stage for one in found.stages if not one.reported]
    console.print(f"stages, p95: {', '.join(known) or 'none reported'}; unknown: {', '.join(unknown) or 'none'}")


def _batches(found: Measured, console: Console) -> None:
    """From the sending: what running together does, without the wait."""
    table = plain_table("together: p95", ("requests", "first token", "a token"), "right")
    for row in found.batches:
        together = str(row.low) if row.low == row.high else f"{row.low}-{row.high}"
        table.add_row(together, str(row.n), interval(row.ttft), interval(row.tpot))
    console.print(table)
