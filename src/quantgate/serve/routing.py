"""Session -> cohort -> variant. The same session meets the same variant for as long as its share allows.

A session has one number in [0, 1), the keyed hash of its name and the release's salt. Below the canary's share it is
the canary's, from 1 - holdback on the baseline's, and otherwise the stable variant's. So raising the share moves
sessions to the canary and none away from it. What is live is one object that a swap replaces by one assignment: a
request is placed by the releases of before or of after, never by half of each.

A choice says as well which side of a comparison the session was drawn to. On trial is the canary, or, where there is
none, the stable variant if it is not the baseline; it is held against the baseline if that has sessions of its own, and
else against the stable variant. Only draws count: of a session that could not have been the other side's, no side is
told, and neither of one that was pinned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from quantgate.release import Live, Variant
from quantgate.serve import Arm, Choice, Request, Side
from quantgate.serve.refusals import Refused
from quantgate.serve.rules import FirstFit
from quantgate.serve_config import PolicyRule

PREFIX = "quantgate/"
NO_SIDE: tuple[Side, float, str] = ("", 0.0, "")


def place(session: str, salt: str) -> float:
    """Where a session lies in [0, 1): 53 bits of blake2b over salt and session.

    >>> place("s", "a") == place("s", "a") != place("s", "b")
    True
    """
    hashed = blake2b(session.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(hashed, "big") >> 11) / 2**53


@dataclass(frozen=True, slots=True)
class Releases:
    """What is live, as routing needs it: made once for each revision."""

    revision: int
    salt: str
    share: float  # of the canary, 0 where there is none that is up
    holdback: float
    stable: Choice
    canary: Choice | None
    held: Choice  # the baseline, as the holdback's
    pins: Mapping[str, Arm]  # by role and by name
    missing: tuple[str, ...] = ()  # variants that are live and not up

    @classmethod
    def of(cls, live: Live, up: Collection[str]) -> Releases:
        """``up``: names of the variants that have an upstream. What is live and not up gets nothing: its requests
        are the baseline's, and a canary that is not up has no share. Raises Refused where the baseline is not up."""
        named: dict[str, Arm] = {}
        for role, one in (("baseline", live.baseline), ("stable", live.stable), ("canary", live.canary)):
            if one is not None and one.name in up:
                named[role] = named.get(one.name) or arm(one, role)
                named.setdefault(one.name, named[role])
        if "baseline" not in named:
            raise Refused(503, "baseline_down", f"{live.target}: its baseline '{live.baseline.name}' is not up")
        named.setdefault("stable", named["baseline"])
        wanted = [one.name for one in (live.baseline, live.stable, live.canary) if one is not None]
        holdback = live.holdback if named["stable"] is not named["baseline"] else 0.0
        share = min(live.share, 1.0 - holdback) if "canary" in named else 0.0
        baseline = named["baseline"]

        sides = compared(live, named, share, holdback)
        salt = live.salt or live.target
        draw = blake2b(salt.encode(), digest_size=6, person=b"draw").hexdigest()

        def choice(role: str, cohort: Any) -> Choice:
            fallback = None if named[role] is baseline else baseline
            side, odds, against = sides.get(cohort, NO_SIDE)
            told = Choice(named[role], cohort, share, live.revision, fallback=fallback)
            return replace(told, side=side, odds=odds, against=against, draw=draw) if side else told

        return cls(
            revision=live.revision,
            salt=salt,
            share=share,
            holdback=holdback,
            stable=choice("stable", "stable"),
            canary=choice("canary", "canary") if "canary" in named else None,
            held=choice("baseline", "holdback"),
            pins=named,
            missing=tuple(dict.fromkeys(name for name in wanted if name not in up)),
        )

    def drawn(self, session: str) -> Choice:
        at = place(session, self.salt)
        if at >= 1.0 - self.holdback:
            return self.held
        return self.canary if at < self.share and self.canary is not None else self.stable

    def pinned(self, name: str, *, rule: str = "") -> Choice:
        """By role or by name; of a variant that is not up, the baseline: it is what every variant must stand up to."""
        found, baseline = self.pins.get(name, self.pins["baseline"]), self.pins["baseline"]
        return Choice(found, "pinned", self.share, self.revision, rule, None if found is baseline else baseline)


def compared(live: Live, named: Mapping[str, Arm], share: float, holdback: float) -> dict[str, tuple[Side, float, str]]:
    """Side, odds and the other side's digest, by cohort. ``named``: arms by role, as they answer here; ``share`` and
    ``holdback``: as sessions are drawn here.

    Empty where both sides are the same bytes, where nobody is drawn to one of them, and where a variant of the
    comparison is not up: replicas that have it up tell of a trial, and none tells of another one.
    """
    control, trial = live.baseline, live.canary or live.stable
    if live.canary is None:
        cohorts, odds = ("stable", "holdback"), 1.0 - holdback
    elif holdback > 0:
        cohorts, odds = ("canary", "holdback"), share / (share + holdback)
    else:
        cohorts, odds = ("canary", "stable"), share
        if not live.holdback:
            control = live.stable
    arms = [named.get("baseline" if one == "holdback" else one) for one in cohorts]
    digests = [one.digest if one is not None else None for one in arms]
    if digests != [trial.artifact, control.artifact] or trial.artifact == control.artifact or not 0.0 < odds < 1.0:
        return {}
    return {cohorts[0]: ("trial", odds, control.artifact), cohorts[1]: ("control", odds, trial.artifact)}


class CohortRouter:
    """See ``settings.Router``. ``swap`` is what a new release calls, from whatever thread."""

    def __init__(
        self,
        target: str,
        live: Live,
        up: Collection[str],
        *,
        rules: Sequence[PolicyRule] = (),
        pinners: Collection[str] = (),
        names: Collection[str] = (),
        unlisted: Collection[str] = (),
    ) -> None:
        """``pinners``: ids of keys without the scope admin that may ask for a variant by name; ``names``: more names
        that the target goes by; ``unlisted``: the same, but /v1/models is silent about them (a path of this machine).
        """
        self.target, self.rules, self.pinners = target, FirstFit(rules), frozenset(pinners)
        self.names = frozenset((target, PREFIX + target, *names, *unlisted))
        self.listed = tuple(dict.fromkeys((target, *names)))
        self.now = Releases.of(live, up)
        self._trouble: str | None = None

    def swap(self, live: Live, up: Collection[str]) -> None:
        """From the next request on. A release older than what is live changes nothing."""
        if live.revision >= self.now.revision:
            self.now = Releases.of(live, up)

    def tell(self, trouble: str | None) -> None:
        """Why releases may be out of date; None: they are not."""
        self._trouble = trouble

    def choose(self, request: Request) -> Choice:
        now = self.now
        asked = request.body.get("model")
        if asked not in self.names:
            return self._named(str(asked), request, now)
        rule = self.rules.of(request)
        if rule is not None:
            return now.pinned(rule.variant, rule=rule.name)
        return now.drawn(request.session)

    def _named(self, asked: str, request: Request, now: Releases) -> Choice:
        """A client that names a variant: only those who may, or anybody could leave the canary at will."""
        name = asked.removeprefix(PREFIX)
        if name not in now.pins:
            said = f"the model '{asked[:200]}' is not served here; ask for '{self.target}', or see GET /v1/models"
            raise Refused(404, "model_not_found", said, param="model")
        if "admin" not in request.caller.scopes and request.caller.key not in self.pinners:
            raise Refused(
                403,
                "variant_not_allowed",
                f"this key may not choose the variant '{name}'; ask for the model '{self.target}'",
                param="model",
            )
        return now.pinned(name, rule="model")

    def models(self) -> Sequence[Mapping[str, Any]]:
        now = self.now
        own = [(name, now.stable.arm) for name in self.listed]
        listed = [*own, *((PREFIX + one.name, one) for one in self.arms())]
        return [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "quantgate",
                "quantgate": {"variant": one.name, "digest": one.digest, "role": one.role, "revision": now.revision},
            }
            for name, one in listed
        ]

    def arms(self) -> Sequence[Arm]:
        return tuple({one.name: one for one in self.now.pins.values()}.values())

    def trouble(self) -> str | None:
        """Only what makes the gateway unfit to answer; ``warnings`` has the rest."""
        return None

    def warnings(self) -> list[str]:
        found = [f"variant '{name}' is live and not up" for name in self.now.missing]
        return [*found, self._trouble] if self._trouble else found


def arm(variant: Variant, role: Any) -> Arm:
    return Arm(variant.name, variant.artifact, role)
