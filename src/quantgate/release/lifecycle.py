"""What moves a target: promote, ramp, hold, roll back, another baseline; what each demands, and what it writes.

Forward needs proof: the latest decision about exactly these bytes, in this engine, on this target must have passed.
Back needs none: what was live before, and the baseline, may be gone back to at any time. A held target goes no way but
back, and that by a person alone. Each function gives what is live now, and does nothing where that is so already.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import JsonValue

from quantgate.errors import Moved, NoCapacity, NotPromoted, UsageError
from quantgate.release import Live, Variant
from quantgate.release.capacity import Capacity
from quantgate.release.finding import find, proven, starts
from quantgate.release.history import Move, What, percent, same, was_stable
from quantgate.release.store import Moves, Plan, Registry

MOST_HELD_BACK = 0.5
TRIES = 20  # of a rollback, while others move the same target


def promote(
    registry: Registry,
    target: str,
    variant: str,
    *,
    canary: float | None = None,
    holdback: float | None = None,
    why: str = "",
    of: str | None = None,
    details: Mapping[str, JsonValue] = {},
) -> Live:
    """Give ``variant`` the traffic of ``target``, or the share ``canary`` of its sessions first.

    ``variant``: its name, of which the latest decided counts, or the start of its artifact's digest. ``holdback``: the
    share of sessions that stays with the baseline for ever. ``of``: the digest that must be the canary's, for whoever
    judged that one. Raises UnknownName, UsageError, NotPromoted, Moved.
    """
    live = registry.live(target)
    chosen = _canary(live, of) if of is not None else find(registry, live, variant)
    if chosen.is_baseline:
        raise UsageError(f"{target}: the baseline is not promoted; go back to it with: quantgate rollback {target}")
    decided = proven(registry, live, chosen)
    _not_held(registry, live)
    _not_another(live, chosen)
    holdback = live.holdback if holdback is None else holdback
    if not 0 <= holdback <= MOST_HELD_BACK:
        raise UsageError(
            f"{target}: a holdback is at most {percent(MOST_HELD_BACK)} of sessions, found {percent(holdback)}"
        )
    told: dict[str, Any] = {"why": why, "decision": decided.decision, "details": details}
    after = _next(live, holdback=holdback, salt=live.salt or _salt())
    if canary is None:
        after = after.model_copy(update={"stable": chosen, "canary": None, "share": 0.0})
        return _move(registry, live, after, "holdback" if live.stable == chosen else "promote", told)
    _shares(target, canary, holdback)
    if same(live.stable, chosen):
        raise NotPromoted(f"{target}: {chosen.name} has the traffic already, so it cannot be a canary")
    if same(live.canary, chosen) and canary != live.share:
        raise NotPromoted(
            f"{target}: {chosen.name} is its canary at {percent(live.share)} already; give it more with: "
            f"quantgate ramp {target} SHARE"
        )
    salt = live.salt if live.canary else _salt()
    after = after.model_copy(update={"canary": chosen, "share": canary, "salt": salt})
    return _move(registry, live, after, "canary", told)


def ramp(
    registry: Registry,
    target: str,
    share: float,
    *,
    why: str = "",
    of: str | None = None,
    details: Mapping[str, JsonValue] = {},
) -> Live:
    """Give the canary of ``target`` more of its sessions: those that it has stay with it.

    ``of``: the digest that must be the canary's, for whoever judged that one. Raises NotPromoted, Moved.
    """
    live = registry.live(target)
    if of is not None:
        _canary(live, of)
    if live.canary is None:
        raise NotPromoted(f"{target}: it has no canary; start one with: quantgate promote {target} VARIANT --canary 5%")
    if share == live.share:
        return live
    if share < live.share:
        raise NotPromoted(
            f"{target}: {live.canary.name} has {percent(live.share)} and a ramp only goes up, so that no session "
            f"changes sides and back; to take it away: quantgate rollback {target}"
        )
    _shares(target, share, live.holdback)
    decided = proven(registry, live, live.canary)
    _not_held(registry, live)
    told: dict[str, Any] = {"why": why, "decision": decided.decision, "details": details}
    return registry.move(live, _next(live, share=share), "ramp", **told).live


def hold(registry: Registry, target: str, *, why: str = "", off: bool = False) -> Live:
    """Freeze ``target``: no promotion, no ramp, nothing automatic, until the hold is lifted (``off``)."""
    live = registry.live(target)
    if live.frozen != off:
        return live
    return registry.move(live, _next(live, frozen=not off), "lift" if off else "hold", why=why).live


def rollback(
    registry: Registry,
    target: str,
    *,
    to: str | None = None,
    why: str,
    capacity: Capacity | None = None,
    force: bool = False,
    automatic: bool = False,
    of: str | None = None,
    details: Mapping[str, JsonValue] = {},
) -> Move | None:
    """Take the traffic back in one move, on the disk when this returns; None where it was there already.

    Without ``to``: a canary is taken away; without a canary, what had the traffic before gets it again. Doing it again
    goes no further back: a rollback that was told twice happens once. ``to``: the baseline, or what had the traffic of
    this target before, by name or digest. ``capacity`` says whether that is up; ``force`` goes there all the same.
    ``of``: the digest of what is to lose the traffic, the canary or else the stable variant; where that is another by
    now, in the very moment of the move, nothing moves and None is returned: a verdict on one never takes back another.

    Raises UsageError without a reason, NotPromoted for what was never live here and for anything automatic while the
    target is held, NoCapacity, ReleaseError.
    """
    if not why.strip():
        raise UsageError(f"{target}: a rollback needs a reason; say --reason 'why'")
    told: dict[str, Any] = {"why": why, "details": dict(details)}
    for _ in range(TRIES):
        live = registry.live(target)
        if not _is_of(live, of):
            return None
        back = _where_it_is(registry, live, _back(live, partial(registry.history, target), to, automatic))
        said = _ask(target, back, capacity, force) if _would_move(live, back) else ""
        try:
            return registry.move_from(target, _rollback_plan(back, to, automatic, of, told | {"capacity": said}))
        except _Elsewhere:
            continue  # somebody moved it while we asked whether the old place is up: ask about the new one
    raise Moved(f"{target}: others move it all the time; hold it first: quantgate hold {target}")


class _Elsewhere(Exception):
    """What is live now would be gone back from to another variant than the one that was asked about."""


def _rollback_plan(back: Variant, to: str | None, automatic: bool, of: str | None, told: dict[str, Any]) -> Plan:
    def plan(now: Live, moves: Moves) -> tuple[Live, What, dict[str, Any]] | None:
        if not _is_of(now, of):
            return None
        goal = _back(now, moves, to, automatic)
        if not _would_move(now, goal):
            return None
        if not same(goal, back) or not told["capacity"]:
            raise _Elsewhere
        return _next(now, stable=back, canary=None, share=0.0), "rollback", told

    return plan


def _back(live: Live, moves: Moves, to: str | None, automatic: bool) -> Variant:
    if automatic and live.frozen:
        raise NotPromoted(f"{live.target}: it is held{_by(moves())}, so only a person moves it")
    if to is not None:
        return _was_live(live, moves(), to)
    return live.stable if live.canary is not None else _before(live, moves())  # a canary's way back is no long one


def _where_it_is(registry: Registry, live: Live, back: Variant) -> Variant:
    """The same bytes where they were registered last: what was live long ago may lie elsewhere now."""
    if same(back, live.baseline):
        return live.baseline
    return next((one for one in registry.variants(live.target) if same(one, back)), back)


def _is_of(live: Live, of: str | None) -> bool:
    """Whether ``of`` is what a rollback would take the traffic from."""
    return of is None or (live.canary or live.stable).artifact == of


def _canary(live: Live, of: str) -> Variant:
    """The canary, where it is these bytes; what is done with it moves from ``live`` alone. Raises NotPromoted."""
    if live.canary is None or live.canary.artifact != of:
        found = "has no canary" if live.canary is None else f"has another canary, {live.canary.name}"
        raise NotPromoted(f"{live.target}: it {found}, and what was judged is {of[:19]}; nothing was moved")
    return live.canary


def _would_move(live: Live, back: Variant) -> bool:
    return live.canary is not None or not same(live.stable, back)


def _ask(target: str, back: Variant, capacity: Capacity | None, force: bool) -> str:
    """What the history tells of the capacity of what is gone back to. Raises NoCapacity."""
    if capacity is None:
        return "not asked"
    why_not = capacity(back)
    if why_not and not force:
        raise NoCapacity(
            f"{target}: {back.name}, to go back to, is not up: {why_not}; start it, or go all the same with --force"
        )
    return f"not up, forced: {why_not}" if why_not else "up"


def rebase(registry: Registry, target: str, baseline: Variant, *, why: str) -> Live:
    """Serve another full-precision model: an operator's word, for nothing was compared with what was live before.

    The same weights in another place change the place alone.
    """
    live = registry.live(target)
    if not baseline.is_baseline:
        raise UsageError(f"{target}: '{baseline.name}' is no baseline")
    _not_held(registry, live)
    after = _next(live, baseline=baseline)
    if not same(live.baseline, baseline):
        after = after.model_copy(update={"stable": baseline, "canary": None, "share": 0.0})
    elif same(live.stable, baseline):
        after = after.model_copy(update={"stable": baseline})
    return _move(registry, live, after, "rebase", {"why": why})


def _move(registry: Registry, live: Live, after: Live, what: What, told: dict[str, Any]) -> Live:
    """Nothing where all of it is so already."""
    if after.model_copy(update={"revision": live.revision, "salt": live.salt}) == live:
        return live
    return registry.move(live, after, what, **told).live


def _before(live: Live, moves: tuple[Move, ...]) -> Variant:
    """What a rollback without a name goes to where there is no canary."""
    changed = next((one for one in moves if one.before and not same(one.before.stable, one.live.stable)), None)
    if changed is None or changed.before is None or changed.what == "rollback":
        return live.stable  # nothing before it, or it has been gone back to already
    return live.baseline if changed.what == "rebase" else changed.before.stable


def _was_live(live: Live, moves: tuple[Move, ...], ref: str) -> Variant:
    """The baseline, or what had the traffic since the target took this baseline."""
    changed = (one for one in moves if one.before is None or not same(one.before.baseline, one.live.baseline))
    since = next((one.revision for one in changed), 1)
    known = [live.baseline, *was_stable([one for one in moves if one.revision >= since])]
    found = [one for one in known if one.name == ref] or [one for one in known if starts(one, ref)]
    if found:
        return found[0]
    if ref == "baseline":
        return live.baseline
    names = ", ".join(dict.fromkeys(one.name for one in known))
    raise NotPromoted(f"{live.target}: {ref} never had its traffic, so there is no way back to it; known: {names}")


def _not_held(registry: Registry, live: Live) -> None:
    if live.frozen:
        told = f"{live.target}: it is held{_by(registry.history(live.target))}"
        raise NotPromoted(f"{told}; lift that first: quantgate hold {live.target} --off")


def _by(moves: tuple[Move, ...]) -> str:
    held = next((one for one in moves if one.what == "hold"), None)
    if held is None:
        return ""
    return f" by {held.who or 'somebody'} since {held.at[:16]}" + (f" ({held.why})" if held.why else "")


def _not_another(live: Live, chosen: Variant) -> None:
    if live.canary is not None and not same(live.canary, chosen):
        raise NotPromoted(
            f"{live.target}: {live.canary.name} is its canary at {percent(live.share)}; promote that or take it away "
            f"first: quantgate rollback {live.target}"
        )


def _shares(target: str, share: float, holdback: float) -> None:
    if not 0 < share <= 1:
        raise UsageError(f"{target}: a canary's share is more than 0 % and at most 100 %, found {percent(share)}")
    if share + holdback > 1:
        raise UsageError(
            f"{target}: {percent(share)} for the canary and {percent(holdback)} held back for the baseline are more "
            "than all sessions; lower one"
        )


def _next(live: Live, **changes: Any) -> Live:
    return Live.model_validate({**dict(live), "revision": live.revision + 1, **changes})


def _salt() -> str:
    return secrets.token_hex(8)
