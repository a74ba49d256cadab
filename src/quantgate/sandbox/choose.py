"""The best tier that this machine allows, proven by the probes, once per process."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence

from quantgate.sandbox import Tier, probes
from quantgate.sandbox.box import Box, Refused
from quantgate.sandbox.probes import Probe

_one_at_a_time = threading.Lock()
_found: dict[tuple[int, Tier | None], Box] = {}


def ready(tier: Tier | None = None) -> Box:
    """A box that has passed the self-test, at ``tier`` or at the best one. Raises SandboxError where there is none.

    The first call takes about two seconds; later ones of the same process get the same box.
    """
    key = (os.getpid(), tier)
    with _one_at_a_time:
        if key not in _found:
            _found[key] = box = best((1, 2) if tier is None else (tier,), probes.PROBES)
            atexit.register(box.close)
        return _found[key]


def best(tiers: Sequence[Tier], attacks: Sequence[Probe]) -> Box:
    """A box at the first of ``tiers`` that contains all ``attacks``. Raises SandboxError with what each tier lacks."""
    reasons: list[str] = []
    for tier in tiers:
        try:
            box = Box(tier)
        except Refused as reason:
            reasons.append(f"not tier {tier}: {reason.why}")
            continue
        if not (open_to := escapes(box, attacks)):
            box.instead_of = "".join(f"; {one}" for one in reasons)
            return box
        box.close()
        reasons.append(f"not tier {tier}: it let code {', '.join(open_to)}")
    raise Refused("; ".join(reasons))


def escapes(box: Box, attacks: Sequence[Probe]) -> list[str]:
    """Run them side by side; those that were not contained, with what came of them."""
    found = box.run_many([one.job for one in attacks], side_by_side=len(attacks))
    return [
        f"{probe.name} ({outcome.because or outcome.verdict})"
        for probe, outcome in zip(attacks, found, strict=True)
        if not probe.contained(outcome)
    ]
