"""The best tier that this machine allows, proven by the probes, once per process."""

from __future__ import annotations

import atexit
import os
import threading

from quantgate.sandbox import Tier, probes
from quantgate.sandbox.box import Box, Refused

_one_at_a_time = threading.Lock()
_found: dict[tuple[int, Tier | None], Box] = {}


def ready(tier: Tier | None = None) -> Box:
    """A box that has passed the self-test, at ``tier`` or at the best one. Raises SandboxError where there is none.

    The first call takes about two seconds; later ones of the same process get the same box.
    """
    key = (os.getpid(), tier)
    with _one_at_a_time:
        if key not in _found:
            _found[key] = box = _best((1, 2) if tier is None else (tier,))
            atexit.register(box.close)
        return _found[key]


def _best(tiers: tuple[Tier, ...]) -> Box:
    reasons: list[str] = []
    for tier in tiers:
        try:
            box = Box(tier)
        except Refused as reason:
            reasons.append(f"not tier {tier}: {reason.why}")
            continue
        if not (open_to := escapes(box)):
            box.instead_of = "".join(f"; {one}" for one in reasons)
            return box
        box.close()
        reasons.append(f"not tier {tier}: it let code {', '.join(open_to)}")
    raise Refused("; ".join(reasons))


def escapes(box: Box) -> list[str]:
    """Run every probe; what was not contained, with what came of it."""
    found = box.run_many([one.job for one in probes.PROBES], side_by_side=len(probes.PROBES))
    return [
        f"{probe.name} ({outcome.because or outcome.verdict})"
        for probe, outcome in zip(probes.PROBES, found, strict=True)
        if not probe.contained(outcome)
    ]
