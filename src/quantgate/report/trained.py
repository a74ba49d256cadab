"""What a report says of variants that were trained: how, on what, and what it brought."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.evaluate.overlap import Overlaps
from quantgate.quantize.manifest import Training
from quantgate.report import RunReport, VariantSummary

WAYS = {"distill": "distilled", "qat": "QAT"}  # short, beside a name


def ways_of(report: RunReport, variant: str) -> tuple[str, ...]:
    """How a variant was trained, in order: distill, qat; empty where it was rounded after training, or not at all."""
    found = next((one for one in report.variants if one.name == variant), None)
    return () if found is None else tuple(one.method for one in found.training)


def way_words(report: RunReport, variant: VariantSummary) -> str:
    """What stands beside a variant's name once a release trains any: how its numbers came about.

    Of a release that trains none it is empty, since all of its variants came about alike.
    """
    if not any(one.training for one in report.variants):
        return ""
    words = [WAYS[one.method] for one in variant.training]
    if variant.method and "QAT" not in words:
        words.append(variant.method)
    return ", ".join(words)


def training_sentence(one: Training) -> str:
    """How one training went.

    >>> print(training_sentence(Training(method="qat", teacher="sha256:ab", data="sha256:cd", sources={"math": 900,
    ...     "traffic": 80}, options={"start": "gptq", "learning_rate": 3e-4}, steps=400, best=350, tokens=1_600_000,
    ...     before=0.2, after=0.05)))
    trained with its rounding, from the codes of gptq: 400 steps (the state after 350 was kept) over 1,600,000 tokens; \
KL to its teacher on conversations that did not train it 0.2 before, 0.05 after; on 900 conversations of math, 80 of \
traffic
    """
    if one.method == "distill":
        what = "distilled from its teacher"
    else:
        what = f"trained with its rounding, from the codes of {one.options.get('start', 'a post-training method')}"
    kept = "" if one.best == one.steps else f" (the state after {one.best:,} was kept)"
    said = [f"{what}: {one.steps:,} steps{kept} over {one.tokens:,} tokens"]
    if one.before is not None and one.after is not None:
        said.append(
            f"KL to its teacher on conversations that did not train it {one.before:.3g} before, {one.after:.3g} after"
        )
    sources = ", ".join(
        f"{count:,}{' conversations' if not at else ''} of {name.replace('_', ' ')}"
        for at, (name, count) in enumerate(one.sources.items())
    )
    return "; ".join([*said, f"on {sources}"])


def held_sentence(found: Sequence[Overlaps]) -> str:
    """What became of the comparison of training data with the gates' cases.

    >>> held_sentence([Overlaps(samples=900, cases=400, suites=("math",), items=0, sources=0,
    ...     allowed=0, pairs=())])
    'none of 900 training conversations is among the 400 cases of math'
    """
    said = []
    for one in found:
        among = "none" if not one.items else str(one.items)
        allowed = f" ({one.allowed} allowed by name)" if one.allowed else ""
        more = f"; {one.sources} are of the same source without being the same item" if one.sources else ""
        said.append(
            f"{among} of {one.samples:,} training conversations is among the {one.cases:,} cases of "
            f"{', '.join(one.suites)}{allowed}{more}"
        )
    return "; ".join(said)
