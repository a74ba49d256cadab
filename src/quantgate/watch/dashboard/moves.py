"""What the buttons do: said beforehand in full, and done by the same functions as the command line and /admin.

A form bears the revision that its reader saw. Where somebody moved the target meanwhile nothing is done, and the new
state is shown: nobody confirms one thing and gets another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantgate.errors import Moved, UsageError
from quantgate.release import Live, Variant
from quantgate.release.capacity import Capacity
from quantgate.release.history import Move, same, was_stable
from quantgate.watch.dashboard.words import share

KINDS = ("canary", "ramp", "promote", "hold", "lift", "rollback")
Form = Mapping[str, str]
MOST = 400  # signs of a reason
SOON = "Answers under way are finished where they began; new requests follow within a fraction of a second."


@dataclass(frozen=True, slots=True)
class Asked:
    """A confirmation: what will happen, and what the form asks for."""

    kind: str
    title: str
    button: str
    says: tuple[str, ...]
    revision: int
    share: str = ""  # percent, where it asks for one
    variant: str = ""  # digest, of a new canary
    back: tuple[tuple[str, str], ...] = ()  # value and what it says, of where a rollback may go
    danger: bool = False


def offered(live: Live | None) -> tuple[str, ...]:
    """What may be done now; a new canary starts from the page of releases."""
    if live is None:
        return ()
    freeze = "lift" if live.frozen else "hold"
    if live.canary is not None:
        more = ("ramp", "promote") if not live.frozen else ()
        return (*(one for one in more if one != "ramp" or live.share < 1), freeze, "rollback")
    return (freeze,) if same(live.stable, live.baseline) else (freeze, "rollback")


def asked(
    kind: str,
    live: Live,
    moves: Sequence[Move],
    form: Form,
    *,
    steps: Sequence[float] = (),
    variants: Sequence[Variant] = (),
) -> Asked:
    """``variants``: those that may become a canary. Raises UsageError for what cannot be done from here."""
    name = live.canary.name if live.canary is not None else ""
    says: tuple[str, ...]
    match kind:
        case "canary":
            return _canary(live, form, variants)
        case "ramp" if live.canary is not None:
            more = next((one for one in steps if one > live.share), 1.0)
            wanted = form.get("share", f"{100 * more:g}")
            return Asked(
                kind, f"Give {name} more", "Give it more", _ramp_says(live, wanted), live.revision, share=wanted
            )
        case "promote" if live.canary is not None:
            return Asked(kind, f"Promote {name} to everyone", "Promote it", _promote_says(live), live.revision)
        case "hold" if not live.frozen:
            says = (
                f"{live.target} stays as it is: no promotion, no ramp, and nothing goes back by itself.",
                "The evidence goes on, and alarms are told. A person can still roll back.",
            )
            return Asked(kind, f"Hold {live.target}", "Hold it", says, live.revision)
        case "lift" if live.frozen:
            says = (f"{live.target} may be moved again, by people and by the watch: also back, by itself.",)
            return Asked(kind, f"Lift the hold on {live.target}", "Lift it", says, live.revision)
        case "rollback" if live.canary is not None or not same(live.stable, live.baseline):
            return _rollback(live, moves)
    raise UsageError(f"{live.target}: there is nothing to '{kind}' now; it is at revision {live.revision}")


def do(registry: Any, target: str, kind: str, form: Form, capacity: Capacity) -> Live:
    """The move, by the registry's actor. Raises UsageError, NotPromoted, Moved, NoCapacity, ReleaseError."""
    from quantgate.release import lifecycle

    why = _why(form)
    registry = AsSeen(registry, form.get("revision", ""))
    live: Live = registry.live(target)
    match kind:
        case "canary":
            given, digest = part(form.get("share", "")), form.get("variant", "")
            if not digest:
                raise UsageError(f"{target}: no variant is named; begin at the page of releases")
            return lifecycle.promote(registry, target, digest, canary=given, why=why)
        case "ramp" if live.canary is not None:
            return lifecycle.ramp(registry, target, part(form.get("share", "")), why=why, of=live.canary.artifact)
        case "promote" if live.canary is not None:
            digest = live.canary.artifact
            return lifecycle.promote(registry, target, digest, why=why, of=digest)
        case "hold" | "lift":
            return lifecycle.hold(registry, target, why=why, off=kind == "lift")
        case "rollback":
            to, force, of = form.get("to") or None, form.get("force") == "yes", (live.canary or live.stable).artifact
            moved = lifecycle.rollback(registry, target, to=to, why=why, capacity=capacity, force=force, of=of)
            if moved is None:
                raise Moved(f"{target}: nothing was rolled back: it was there already, or moves; look again")
            done: Live = moved.live
            return done
    raise UsageError(f"{target}: there is nothing to '{kind}' now; it is at revision {live.revision}")


class AsSeen:
    """A registry in which nothing moves but from the revision that somebody saw, also while two press at once."""

    def __init__(self, registry: Any, seen: str) -> None:
        self._registry, self._seen = registry, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    def live(self, target: str) -> Live:
        """Raises Moved, and as a registry does."""
        return self._same(self._registry.live(target))

    def move_from(self, target: str, plan: Callable[[Live, Any], Any]) -> Any:
        """Raises Moved, and as a registry does."""
        return self._registry.move_from(target, lambda now, moves: plan(self._same(now), moves))

    def _same(self, now: Live) -> Live:
        if self._seen != str(now.revision):
            raise Moved(
                f"{now.target}: somebody moved it meanwhile, it is at revision {now.revision} now; read what would "
                "happen, and decide again"
            )
        return now


def _why(form: Form) -> str:
    """One line: the history is also read on terminals. Raises UsageError."""
    why = " ".join("".join(one if one.isprintable() else " " for one in form.get("why", "")).split())
    if not why:
        raise UsageError("a reason is missing; write in a few words why, for who reads the history later")
    if len(why) > MOST:
        raise UsageError(f"a reason has at most {MOST} signs, found {len(why)}; say the rest elsewhere")
    return why


def part(text: str) -> float:
    """A share of 1 out of percent as people type it. Raises UsageError.

    >>> part("25"), part(" 2.5 % ")
    (0.25, 0.025)
    """
    try:
        percent = float(text.strip().removesuffix("%").strip().replace(",", "."))
    except ValueError:
        raise UsageError(f"share: expected percent of sessions, such as 25, found '{text[:40]}'") from None
    if not 0 < percent <= 100:
        raise UsageError(f"share: more than 0 % and at most 100 % of sessions, found {text.strip()[:40]}")
    return round(percent / 100, 9)


def _canary(live: Live, form: Form, variants: Sequence[Variant]) -> Asked:
    digest = form.get("variant", "")
    wanted = form.get("share", "1")
    if live.canary is not None:
        raise UsageError(f"{live.target}: {live.canary.name} is its canary; promote it or take it away first")
    try:
        given = share(part(wanted))
    except UsageError:
        given = "the share that you write"
    chosen = next((one for one in variants if one.artifact == digest and not one.is_baseline), None)
    if chosen is None:
        raise UsageError(
            f"{live.target}: no decision speaks of {digest[:19] or 'that variant'}; see the page of releases"
        )
    name = chosen.name
    says = (
        f"{given} of sessions go to {name}, the others stay with {live.stable.name}, each where it is drawn.",
        "The watch compares both sides from the first session on, and takes it back by itself where it is worse.",
        "The registry demands that the latest decision about exactly these bytes has passed.",
    )
    return Asked("canary", f"Try {name} on live sessions", "Start", says, live.revision, share=wanted, variant=digest)


def _ramp_says(live: Live, wanted: str) -> tuple[str, ...]:
    assert live.canary is not None
    try:
        given = part(wanted)
    except UsageError as problem:
        return (str(problem),)
    if given <= live.share:
        return (
            f"{live.canary.name} has {share(live.share)} already, and a ramp only goes up. To take it away, roll back.",
        )
    more = f"{live.canary.name} gets {share(given)} of sessions instead of {share(live.share)}."
    return (
        f"{more} Those that it has stay with it, and {share(given - live.share)} of all move over from "
        f"{live.stable.name}.",
        f"The evidence goes on from where it is, and the watch can still take it back. {SOON}",
    )


def _promote_says(live: Live) -> tuple[str, ...]:
    assert live.canary is not None
    held = f", but {share(live.holdback)} that stay with {live.baseline.name} to compare with" if live.holdback else ""
    alone = (
        "Nothing stays with the baseline to compare it with; for that, set a holdback by the command line first."
        if not live.holdback
        else "The watch goes on comparing, and can still take it back."
    )
    return (
        f"{live.canary.name} serves all sessions{held}. {live.stable.name} gives up its {share(1 - live.share)}.",
        f"{alone} {SOON}",
    )


def _rollback(live: Live, moves: Sequence[Move]) -> Asked:
    choices: list[tuple[str, str]] = []
    if live.canary is not None:
        choices.append(("", f"take {live.canary.name} away: {live.stable.name} serves everyone"))
    since = next((at for at, one in enumerate(moves) if one.what in ("open", "rebase")), len(moves))
    known: list[Variant] = [one for one in was_stable(list(moves[: since + 1])) if not same(one, live.stable)]
    if not any(same(one, live.baseline) for one in [*known, live.stable]):
        known.append(live.baseline)
    for one in known:
        told = ", the baseline" if same(one, live.baseline) else ", which had the traffic before"
        choices.append((one.artifact, f"to {one.name}{told}"))
    lost = live.canary.name if live.canary is not None else live.stable.name
    says = (f"{lost} loses all of its sessions at once. {SOON}", "Nothing is deleted: it can be promoted again.")
    return Asked(
        "rollback", f"Roll {live.target} back", "Roll back", says, live.revision, back=tuple(choices), danger=True
    )
