"""The noise floor and the engines' own clocks in words: what stands beside every result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantgate.decide.sentences import percent
from quantgate.evaluate.evidence import Evidence, NoiseFloor, Pace
from quantgate.stats.intervals import clopper_pearson


def noise_sentence(noise: Sequence[NoiseFloor]) -> str:
    """
    >>> print(noise_sentence([NoiseFloor(capability="math", n=50, flips=1, differ=3, low=0.0, high=0.11, how="again")]))
    the baseline contradicts itself: of 50 cases asked twice (again) 1 flips (2 %, 95 %: 0.1 to 10.6 %), 3 texts differ
    """
    n, flips = sum(one.n for one in noise), sum(one.flips for one in noise)
    low, high = clopper_pearson(flips, n, 0.05)
    share = f"{percent(flips / n)}, 95 %: {100 * low:.1f} to {100 * high:.1f} %"
    texts = sum(one.differ for one in noise)
    head = "the baseline contradicts itself" if flips else "the baseline does not contradict itself"
    verb, also = "flips" if flips == 1 else "flip", "text differs" if texts == 1 else "texts differ"
    return f"{head}: of {n} cases asked twice ({noise[0].how}) {flips} {verb} ({share}), {texts} {also}"


def pace_sentence(pace: Pace | None, runtime: Sequence[str]) -> str:
    """
    >>> pace = Pace(cases=2, tokens=90, prefill_s=0.1, decode_s=2.0, drafted=80, accepted=60)
    >>> print(pace_sentence(pace, ["engine=llamacpp", "draft=small.gguf"]))
    45 tokens/s by the engine's own clock (engine=llamacpp, draft=small.gguf; 75 % of 80 drafted tokens accepted)
    """
    if pace is None or pace.tokens_per_s is None:
        return ""
    drafts = (
        "" if pace.acceptance is None else f"; {percent(pace.acceptance)} of {pace.drafted} drafted tokens accepted"
    )
    return f"{pace.tokens_per_s:,.0f} tokens/s by the engine's own clock ({', '.join(runtime)}{drafts})"


def pace_lines(evidence: Sequence[Evidence], paces: Mapping[str, Pace]) -> list[str]:
    """The speed of every variant by its engine's own clock, and what became of drafts."""
    told = [(one.variant, pace_sentence(paces.get(one.variant), one.runtime)) for one in evidence]
    return [f"{name}: {sentence}" for name, sentence in told if sentence]
