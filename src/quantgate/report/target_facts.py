"""What a target asks for, and how fast each variant is foretold and measured to be there, as words for a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantgate.decide.planning import PlanRow, least_of
from quantgate.decide.rules import LoadEvidence
from quantgate.decide.sentences import count, margin_of
from quantgate.decide.targets import TargetDecision
from quantgate.hardware.quantities import told_bytes, told_seconds
from quantgate.hardware.targets import LATENCIES
from quantgate.loadtest.objectives import Latency
from quantgate.report.loads import interval

FULL: dict[str, Latency] = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e"}


@dataclass(frozen=True)
class Column:
    """One latency."""

    latency: Latency
    name: str  # "time to the first token"
    promised: tuple[str, ...]  # "p95 at most 300 ms"
    percentiles: tuple[float, ...]  # that are promised; p95 where none is


def money(amount: float) -> str:
    """
    >>> money(0.0013633), money(12.3456), money(0.0)
    ('0.0014', '12.35', '0')
    """
    return f"{amount:.2f}" if amount >= 1 else f"{amount:.2g}"


def rate(per_second: float) -> str:
    """
    >>> rate(7958.7), rate(0.5)
    ('7,959', '0.5')
    """
    return f"{per_second:,.0f}" if per_second >= 1000 else f"{per_second:.3g}"


def speed_columns(decision: TargetDecision, loads: Sequence[LoadEvidence]) -> list[Column]:
    """First token and further token always; the whole answer where it was promised or measured."""
    promises = decision.rules.place.promises
    found = []
    for key, name in LATENCIES.items():
        own = {percentile: seconds for (latency, percentile), seconds in promises.items() if latency == key}
        measured = any(load.measured.quantiles.get(FULL[key]) for load in loads)
        if own or measured or key != "e2e":
            told = tuple(f"p{percentile} at most {told_seconds(seconds)}" for percentile, seconds in own.items())
            found.append(Column(FULL[key], name, told, tuple(one / 100 for one in own) or (0.95,)))
    return found


def speed_row(
    decision: TargetDecision, columns: Sequence[Column], row: PlanRow | None, load: LoadEvidence | None
) -> list[tuple[str, list[str]]]:
    """For each column what is foretold, empty where nothing is, and what was measured at each of its percentiles."""
    estimate = row.estimate if row is not None else None
    cells = []
    for column in columns:
        least = None if estimate is None else least_of(decision.rules.place, estimate, column.latency)
        foretold = "" if least is None else f"{told_seconds(least)} at best"
        measured = []
        for q in column.percentiles if load is not None else ():
            found = load.measured.at(column.latency, q) if load is not None else None
            measured.append(f"p{100 * q:g} {interval(found)}")
        cells.append((foretold, measured))
    return cells


def asked_rows(decision: TargetDecision) -> list[tuple[str, str]]:
    """The rules of a target as names and words, those that were left out among them."""
    rules, place = decision.rules, decision.rules.place
    devices = f", {place.tensor_parallel} of them share each layer" if place.tensor_parallel > 1 else ""
    rows = [
        ("hardware", f"{place.hardware}{devices}"),
        ("runtime", place.runtime),
        ("memory", "the device's" if place.memory is None else f"{told_bytes(place.memory)} of each device"),
        ("requests", _requests(decision)),
        ("promises", _promises(decision)),
        ("cached keys and values", place.kv_cache),
        ("price", "not given" if place.price is None else f"{place.price:g} an hour for each device"),
        ("cost", "no limit" if rules.cost is None else f"at most {rules.cost:g} for a million answer tokens"),
        ("capabilities", "; ".join(f"{gate.capability} within {margin_of(gate)}" for gate in rules.gates)),
        ("slices", "; ".join(f"{gate.capability} [{one.name}]" for gate in rules.gates for one in gate.slices)),
        ("ledger", "; ".join(f"at most {count(most, 'line')} of {event}" for event, most in rules.ledger.items())),
        ("drift", _drift(decision)),
        ("chosen is", "the cheapest that keeps every rule" if rules.prefer == "cost" else "the smallest that does"),
        ("speed goes by", "a load test" if rules.speed == "measured" else "the roofline alone (speed: planned)"),
        ("answers count of", "its own runtime" if rules.stack == "same" else "any runtime (stack: any)"),
        ("order of the tests", f"{decision.order}, an error of at most {100 * decision.alpha:g} %"),
    ]
    if rules.profile:
        rows.insert(0, ("product profile", rules.profile))
    return [(name, told) for name, told in rows if told]


def _requests(decision: TargetDecision) -> str:
    place = decision.rules.place
    rate = "" if place.rate is None else f"{place.rate:g} a second, "
    return (
        f"{rate}{place.prompt} tokens in and {place.answer} out, {place.concurrency} at once, room for {place.tokens} "
        "tokens each"
    )


def _promises(decision: TargetDecision) -> str:
    told = [f"{latency} p{of} at most {told_seconds(s)}" for (latency, of), s in decision.rules.place.promises.items()]
    return "; ".join(told) or "none: no latency decides"


def _drift(decision: TargetDecision) -> str:
    limits = decision.rules.drift
    if limits is None:
        return ""
    words = {
        "kl_mean": "mean KL at most",
        "ppl_ratio": "perplexity ratio at most",
        "same_top": "same top token at least",
    }
    return "; ".join(f"{words[key]} {value:g}" for key, value in limits.body().items() if value is not None)
