"""Asking upstreams: the variant first, and the baseline where the variant does not answer. Whole answers, and the
rules for both kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quantgate.serve import Arm, Body, Reply, Upstream, UpstreamFault
from quantgate.serve.lanes import Lane
from quantgate.serve.metrics import Metrics
from quantgate.serve.passage import Passage, count_of
from quantgate.serve.refusals import Refused, StageTimeout, of
from quantgate.serve.rules import BYTES_A_TOKEN
from quantgate.serve.settings import Limits
from quantgate.serve.sound import sound

OWN_DOING = (400, 413, 422)  # statuses of an upstream that another upstream would give as well
Fault = UpstreamFault | StageTimeout


class Lanes:
    """The lane of each arm, made when it is first asked for; an upstream that is new after a swap is found as well."""

    def __init__(self, upstreams: Mapping[str, Upstream], limits: Limits, metrics: Metrics) -> None:
        self._upstreams, self._limits, self._metrics = upstreams, limits, metrics
        self._made: dict[str, Lane] = {}

    def of(self, arm: Arm) -> Lane:
        """Raises UpstreamFault where the arm has no upstream."""
        name = arm.name
        upstream, lane = self._upstreams.get(name), self._made.get(name)
        if upstream is None:
            raise UpstreamFault("refused", f"{name}: no upstream is configured for it", status=503)
        if lane is None or lane.upstream is not upstream:
            lane = self._made[name] = Lane(name, upstream, self._limits, self._metrics)
        return lane


def elsewhere(fault: Exception) -> bool:
    """Whether another upstream may answer what this one did not."""
    if isinstance(fault, UpstreamFault):
        return not (fault.kind == "status" and fault.status in OWN_DOING)
    return isinstance(fault, StageTimeout) and fault.stage not in ("stream", "validate")


def cause(fault: Exception) -> str:
    return fault.kind if isinstance(fault, UpstreamFault) else "stage_timeout"


def all_failed(faults: Sequence[Fault], names: Sequence[str]) -> Refused:
    """One typed error for the caller. Of a single upstream, its own; of two, both are told."""
    last = of(faults[-1])
    if len(faults) == 1 or isinstance(faults[-1], StageTimeout) or last.status == 429:
        return last
    said = "; ".join(f"{name}: {fault}" for name, fault in zip(names, faults, strict=False))
    down = all(isinstance(fault, UpstreamFault) and fault.kind == "refused" for fault in faults)
    return Refused(
        503 if down else 502, "all_upstreams_failed", f"neither upstream answered: {said}", type="upstream_error",
        after_s=1.0,
    )  # fmt: skip


async def first_answer(passage: Passage, lanes: Lanes, metrics: Metrics) -> Reply:
    """The first whole answer of the arms, in their order. Raises Refused."""
    faults: list[Fault] = []
    for arm in passage.arms:
        passage.asked = arm
        try:
            return await ask(passage, lanes.of(arm), passage.body)
        except (UpstreamFault, StageTimeout) as fault:
            if not elsewhere(fault):
                raise
            faults.append(fault)
            if arm is not passage.arms[-1]:
                metrics.of(arm.name, passage.choice.cohort).count(metrics.fallbacks, cause(fault))
                passage.clock.again()
    raise all_failed(faults, [arm.name for arm in passage.arms])


async def ask(passage: Passage, lane: Lane, body: Body) -> Reply:
    """One whole answer of one upstream, within the budgets. Raises UpstreamFault, StageTimeout, Refused."""
    clock = passage.clock
    try:
        async with clock:
            begun = await lane.enter(clock, "upstream")
            try:
                reply = await lane.upstream.ask(body, timeout_s=None)
            finally:
                lane.leave(begun)
    except TimeoutError:
        raise clock.late() from None
    clock.enter("validate")
    clock.told(reply.stages)
    usage = reply.body.get("usage")
    passage.used(usage)
    if not isinstance(usage, Mapping) or not count_of(usage.get("completion_tokens")):
        passage.pieces += len(reply.raw) // BYTES_A_TOKEN
    found = sound(reply.body, body.get("n") or 1)
    return reply if found is reply.body else replace(reply, body=found, raw=b"")
