"""Which variant is meant, and whether it is proven: the latest decision about exactly its bytes, engine and target."""

from __future__ import annotations

from quantgate.errors import NotPromoted, UnknownName, UsageError
from quantgate.release import Live, Variant
from quantgate.release.history import Decided
from quantgate.release.store import Registry

LEAST_DIGITS = 6  # of a digest that names a variant


def find(registry: Registry, live: Live, ref: str) -> Variant:
    """A variant that a decision about the target names: the latest of a name, or the one of a digest's start.

    Raises UnknownName, UsageError where a digest is that of several.
    """
    known = [one for one in registry.variants(live.target) if not one.is_baseline]
    if by_name := registry.latest(live.target, ref):
        found = [one for one in known if (one.artifact, one.engine) == by_name]
    else:
        found = [one for one in known if starts(one, ref)]
    if not found and ref == live.baseline.name:
        return live.baseline
    if not found:
        names = [live.baseline.name, *(one.name for one in known)]
        raise UnknownName("variant", ref, dict.fromkeys(names), where=live.target)
    if len({(one.artifact, one.engine) for one in found}) > 1:
        told = ", ".join(sorted({one.name for one in found}))
        raise UsageError(f"{live.target}: {ref} is the digest of several variants ({told}); say which by its name")
    return found[0]


def starts(variant: Variant, ref: str) -> bool:
    """Whether ``ref`` is the start of its artifact's digest, long enough to name it."""
    start = ref.removeprefix("sha256:")
    return len(start) >= LEAST_DIGITS and variant.artifact.removeprefix("sha256:").startswith(start)


def proven(registry: Registry, live: Live, variant: Variant) -> Decided:
    """The latest decision about exactly these bytes, in this engine, on this target. Raises NotPromoted, saying why."""
    told = f"{live.target}: {variant.name} ({variant.artifact[:19]})"
    decided = registry.decided(live.target, variant.artifact, variant.engine)
    if decided is None:
        raise NotPromoted(f"{told}: nobody decided on these bytes in this engine; run it and: quantgate register RUN")
    if decided.verdict == "fail":
        raise NotPromoted(f"{told} failed: {decided.sentence}")
    if decided.verdict == "inconclusive":
        raise NotPromoted(f"{told} is not proven: {decided.sentence}")
    if not decided.eligible:
        raise NotPromoted(f"{told} passed and may not be chosen: {decided.sentence}")
    if decided.baseline != live.baseline.artifact:
        raise NotPromoted(
            f"{told} was compared with another baseline ({decided.baseline[:19]}) than {live.target} serves "
            f"({live.baseline.artifact[:19]}); serve that one first: quantgate register RUN --new-baseline"
        )
    return decided
