"""The plain sentences of a decision: what was lost, the interval, how many cases, how many would have been needed."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.evaluate.evidence import Comparison, Gate


def capability_sentence(gate: Gate, comparison: Comparison | None, verdict: str) -> str:
    """One sentence a product manager follows."""
    if comparison is None or comparison.gate != gate:
        return f"{gate.capability}: no evidence for these bytes and these rules, so nothing is proven"
    if comparison.baseline_score is None or comparison.variant_score is None or comparison.n == 0:
        return f"{gate.capability}: no case could be scored, so nothing is proven{_unscored(comparison)}"
    finding = comparison.finding
    went = (
        f"{gate.capability}: {percent(comparison.baseline_score)} -> {percent(comparison.variant_score)} "
        f"over {comparison.n} cases ({comparison.finding.losses} lost, {comparison.finding.gains} gained)"
    )
    allowed = f"the {percent(gate.margin)} allowed"
    if verdict == "pass":
        worst = f"at worst {percent(max(0.0, -(finding.low or 0.0)))} lost, within {allowed}"
        return f"{went}; {worst}" + ("; a small loss is itself proven" if finding.measurable_loss else "")
    if verdict == "fail":
        return f"{went}; at least {percent(max(0.0, -(finding.high or 0.0)))} lost, more than {allowed}"
    if finding.verdict == "pass":
        return f"{went}; too many cases could not be scored{_unscored(comparison)}"
    between = f"the loss lies between {percent(-(finding.high or 0.0))} and {percent(-(finding.low or 0.0))}"
    needed = f", about {finding.needed} cases would decide" if finding.needed else ""
    return f"{went}; {between}, not proven within {allowed}{needed}"


def _unscored(comparison: Comparison) -> str:
    count = len(comparison.unscored)
    return f" ({count} of {comparison.asked} unscored, first: {comparison.unscored[0]})" if count else ""


def verdict_sentence(verdict: str, rows: Sequence[tuple[str, str]], *, blocked: bool) -> str:
    failed = [name for name, kind in rows if kind == "fail"]
    open_ = [name for name, kind in rows if kind == "inconclusive"]
    if verdict == "fail":
        return f"damages {listing(failed)}" + (f"; {listing(open_)} not decided" if open_ else "")
    if verdict == "inconclusive":
        return f"not proven: {listing(open_)} need more cases or a wider margin"
    if blocked:
        return "keeps every capability, but a larger variant did not pass before it in the fixed sequence"
    return f"keeps all {len(rows)} capabilities within their margins"


def chosen_sentence(chosen: str | None, count: int) -> str:
    if chosen is None:
        return f"none of {count} variants is proven safe: keep the baseline"
    return f"{chosen} is the smallest of {count} variants that is proven safe"


def listing(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def percent(value: float) -> str:
    """Percent with one decimal, without a trailing .0."""
    text = f"{100 * value:.1f}"
    return (text[:-2] if text.endswith(".0") else text) + " %"
