"""The plain sentences of a decision: what was lost, the interval, how many cases, how many would have been needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantgate.evaluate.evidence import Comparison, Gate, SliceGate


def capability_sentence(gate: Gate, comparison: Comparison | None, verdict: str) -> str:
    """One sentence a product manager follows. Shares of the baseline's score are in %, parts of the scale in points."""
    if comparison is None or comparison.gate != gate:
        return f"{gate.capability}: no evidence for these bytes and these rules, so nothing is proven"
    if comparison.baseline_score is None or comparison.variant_score is None or comparison.n == 0:
        return f"{gate.capability}: no case could be scored, so nothing is proven{_unscored(comparison)}"
    finding = comparison.finding
    low, high = -1.0 if finding.low is None else finding.low, 1.0 if finding.high is None else finding.high
    went = (
        f"{gate.capability}: {percent(comparison.baseline_score)} -> {percent(comparison.variant_score)} "
        f"over {count(comparison.n, 'case')} ({finding.losses} lost, {finding.gains} gained)"
    )
    blind = blind_sentence(comparison.blind)
    if blind and finding.verdict == "pass" and verdict == "inconclusive":
        return f"{went}; proves nothing, as {blind}: the baseline is too weak here, or the cases ask for too little"
    allowed = f"the {margin_of(gate)} allowed"
    if verdict == "pass":
        worst = f"at worst {_loss(max(0.0, -low), gate)} lost, within {allowed}"
        return f"{went}; {worst}" + ("; a small loss is itself proven" if finding.measurable_loss else "")
    if verdict == "fail":
        return f"{went}; at least {_loss(max(0.0, -high), gate)} lost, more than {allowed}{_unscored(comparison)}"
    if finding.verdict == "pass":
        return f"{went}; too many cases could not be scored{_unscored(comparison)}"
    between = f"the change lies between {_change(low, gate)} and {_change(high, gate)}"
    if finding.low is None and finding.high is None:
        between = "nothing bounds the change"
    needed = f", about {finding.needed} cases would decide" if finding.needed else ""
    needed = f"; {blind}" if blind else needed
    return f"{went}; {between}, not proven to stay within {allowed}{needed}{_unscored(comparison)}"


def blind_sentence(blind: Sequence[str]) -> str:
    """
    >>> blind_sentence(["always refuses"])
    'a model that always refuses would not have failed either'
    >>> blind_sentence(["answers nothing", "always refuses", "always complies"])
    'a model that answers nothing (and 2 more that answer everything alike) would not have failed either'
    """
    if not blind:
        return ""
    more = len(blind) - 1
    others = f" (and {more} more that answer{'s' if more == 1 else ''} everything alike)" if more else ""
    return f"a model that {blind[0]}{others} would not have failed either"


def slices_sentence(slices: Sequence[tuple[str, str]]) -> str:
    """What the declared slices and their verdicts add to their capability's sentence.

    >>> slices_sentence([("lang=de", "pass"), ("lang=fr", "fail"), ("lang=es", "pass")])
    '; of its slices lang=de and lang=es kept, lang=fr damaged'
    """
    kinds = {"pass": "kept", "fail": "damaged", "inconclusive": "not decided", "report only": "report only"}
    parts = []
    for kind, word in kinds.items():
        names = [name for name, verdict in slices if verdict == kind]
        parts += [f"{listing(names)} {word}"] if names else []
    return f"; of its slices {', '.join(parts)}" if parts else ""


def report_only_sentence(gate: Gate, one: SliceGate) -> str:
    """
    >>> gate = Gate(capability="math [digits=2]", suite="math", margin=0.03)
    >>> report_only_sentence(gate, SliceGate(name="digits=2", margin=0.03, cases=40, needs=151))
    'math [digits=2]: report only, 40 cases where a margin of 3 % needs at least 151'
    """
    return (
        f"{gate.capability}: report only, {count(one.cases, 'case')} where a margin of {margin_of(gate)} needs at "
        f"least {one.needs}"
    )


def _unscored(comparison: Comparison) -> str:
    unscored = comparison.unscored
    return f" ({len(unscored)} of {comparison.asked} unscored, first: {unscored[0]})" if unscored else ""


def margin_of(gate: Gate) -> str:
    """
    >>> margin_of(Gate(capability="math", suite="math", margin=0.03, relative=False))
    '3 points'
    """
    return _amount(gate.margin, gate)


def _loss(value: float, gate: Gate) -> str:
    """A bound with as many decimals as it takes to tell it from the margin beside it."""
    return next(
        (text for digits in (1, 2, 3) if (text := _amount(value, gate, digits)) != _amount(gate.margin, gate, digits)),
        _amount(value, gate),
    )


def _change(value: float, gate: Gate) -> str:
    text = _amount(value, gate)
    return text if text.startswith(("-", "0 ")) else f"+{text}"


def _amount(value: float, gate: Gate, digits: int = 1) -> str:
    return percent(value, digits) if gate.relative else percent(value, digits).replace("%", "points")


def verdict_sentence(verdict: str, rows: Sequence[tuple[str, str]], *, blocked: bool) -> str:
    failed = [name for name, kind in rows if kind == "fail"]
    open_ = [name for name, kind in rows if kind == "inconclusive"]
    if verdict == "fail":
        return f"damages {listing(failed)}" + (f"; {listing(open_)} not decided" if open_ else "")
    if verdict == "inconclusive":
        return f"not proven on {listing(open_)}; more cases or a wider margin may decide"
    if blocked:
        return "keeps every capability, but a larger variant did not pass before it in the fixed sequence"
    if len(rows) == 1:
        return f"keeps {rows[0][0]} within its margin"
    many = "both" if len(rows) == 2 else f"all {len(rows)}"
    return f"keeps {many} capabilities within their margins"


def relation_sentence(relation: str) -> str:
    """What a verdict says of a candidate that is a model of its own.

    >>> relation_sentence("student"), relation_sentence("")
    ('; a model of its own (student), no artifact of the baseline', '')
    """
    return f"; a model of its own ({relation}), no artifact of the baseline" if relation else ""


def ledger_sentence(broken: Mapping[str, int], allowed: Mapping[str, int]) -> str:
    """
    >>> ledger_sentence({"fallback": 2}, {"fallback": 0})
    '; not to be chosen: 2 lines of fallback in its ledger, 0 allowed'
    """
    parts = [f"{count(lines, 'line')} of {event}" for event, lines in broken.items()]
    limits = " and ".join(str(allowed[event]) for event in broken)
    return f"; not to be chosen: {listing(parts)} in its ledger, {limits} allowed" if parts else ""


def chosen_sentence(chosen: str | None, variants: int) -> str:
    if variants == 1:
        return f"{chosen} is proven safe" if chosen else "the only variant is not proven safe: keep the baseline"
    if chosen is None:
        return f"none of {variants} variants is proven safe: keep the baseline"
    return f"{chosen} is the smallest of {variants} variants that is proven safe"


def listing(names: Sequence[str]) -> str:
    """
    >>> listing(["math", "chat", "refusals"])
    'math, chat and refusals'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def percent(value: float, digits: int = 1) -> str:
    """Percent with at most ``digits`` decimals.

    >>> percent(0.03), percent(0.0349), percent(-0.0001), percent(1.0)
    ('3 %', '3.5 %', '0 %', '100 %')
    """
    text = f"{100 * value:.{digits}f}".rstrip("0").rstrip(".")
    return ("0" if text in ("-0", "") else text) + " %"
