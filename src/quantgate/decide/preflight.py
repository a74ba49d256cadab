"""Before anything is spent: refuse gates that cannot pass, however good the variant is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantgate.decide.sentences import listing, margin_of, percent
from quantgate.errors import UsageError
from quantgate.evaluate.evidence import Gate
from quantgate.stats import plan


def fewest_cases(gate: Gate) -> int:
    """The fewest cases with which ``gate`` can pass: no answer flips, and the baseline is always right."""
    return plan.fewest_cases(gate.margin, test=gate.test, alpha=gate.pass_alpha, relative=gate.relative, baseline=1.0)


def likely_cases(gate: Gate, flip_rate: float, baseline: float = 1.0) -> int | None:
    """Cases after which ``gate`` is likely to pass a variant that loses nothing; None when no number is enough."""
    return plan.likely_cases(
        flip_rate,
        gate.margin,
        test=gate.test,
        alpha=gate.pass_alpha,
        relative=gate.relative,
        baseline=baseline,
    )


def short_sentence(gate: Gate, available: int, flip_rate: float, likely: int | None) -> str:
    """What to expect of a gate that has fewer cases than it is likely to need; nothing where it has enough."""
    if likely is not None and likely <= available:
        return ""
    need = "no number of cases decides" if likely is None else f"about {likely} cases are likely to be needed"
    return (
        f"{gate.capability}: a margin of {margin_of(gate)} at alpha {percent(gate.pass_alpha)} and "
        f"{percent(flip_rate)} of answers flipping: {need}, the suite has {available}; it may stay undecided"
    )


def refuse_hopeless(gates: Sequence[Gate], available: Mapping[str, int]) -> None:
    """Raises UsageError, with the figures, when a capability has fewer cases than a pass needs at the very least."""
    hopeless = [(gate, need) for gate in gates if (need := fewest_cases(gate)) > available[gate.capability]]
    if not hopeless:
        return
    gate, need = hopeless[0]
    variants = round(gate.alpha / gate.pass_alpha)
    over = f" over {variants} variants" if variants > 1 else ""
    ways = ["widen the margin", "add cases", *(["judge fewer variants"] if variants > 1 else [])]
    others = [one.capability for one, _ in hopeless[1:]]
    too = f" (and {listing(others)} too few as well)" if others else ""
    raise UsageError(
        f"{gate.capability}: a margin of {margin_of(gate)} at alpha {percent(gate.alpha)}{over} needs at least {need} "
        f"cases, {available[gate.capability]} are available{too}; "
        f"{', '.join(ways[:-1])}{',' if len(ways) > 2 else ''} or {ways[-1]}"
    )
