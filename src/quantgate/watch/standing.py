"""Who is on trial, since when; and whether an exchange is of that trial, of a newer one, or of neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from quantgate.serve import Exchange

Pair = tuple[str, str]
"""Digests of the variant and of its control."""


@dataclass(slots=True)
class Standing:
    """Of one trial: who, since when, and how much was seen. All of it is JSON."""

    variant: str = ""  # digests of the bytes
    control: str = ""
    variant_name: str = ""
    control_name: str = ""
    control_is_baseline: bool = True
    revision: int = 0  # the newest that was counted
    draw: str = ""  # of its sessions; empty: not told yet
    gone: int | None = None  # revision of a release without this trial
    copied: bool = False  # nothing but copies (shadow) was seen of it
    held: bool = False  # promoted: it has all traffic but the holdback
    began_s: float = 0.0  # of the period; seconds of the trial's clock
    copied_at: int = 0  # number of the newest copy of the evidence, after a promotion
    share: float = 0.0  # of sessions, the trial's
    share_since_s: float = 0.0
    odds: float = 0.0  # of the newest exchange
    copies: int = 0  # of prompts that were answered by both
    quiet: list[int] = field(default_factory=lambda: [0, 0])  # new sessions of both since the last of control, of trial
    aside: int = 0  # exchanges drawn to no side since the trial's last
    drawn: list[list[Any]] = field(default_factory=list)  # [odds, sessions, of them the trial's]

    @property
    def pair(self) -> Pair:
        return self.variant, self.control


@dataclass(slots=True)
class Uncounted:
    """What was left out, for whoever asks why."""

    late: int = 0
    twice: int = 0
    strangers: int = 0  # of other bytes than those on trial, or of another draw
    crowded: int = 0  # of odds beyond the 256 different ones
    odd: int = 0  # values that no signal may have
    broken: dict[str, int] = field(default_factory=dict)  # signals that raised an error


def pair_of(exchange: Exchange) -> Pair:
    own, other = exchange.artifact, exchange.against
    return (own, other) if exchange.side == "trial" else (other, own)


def fit(now: Standing | None, exchange: Exchange) -> Literal["same", "new", "stranger"]:
    """Of an exchange that was drawn to a side: of this trial, of one that begins with it, or of neither.

    Another draw is another trial, also of the same bytes: a canary that went back and comes again begins from nothing.
    """
    if now is None:
        return "new"
    canary = exchange.side == "trial" and exchange.cohort == "canary"
    newer = exchange.revision > now.revision
    if now.pair != pair_of(exchange):
        if now.copied and now.gone is None:
            return "new"
        # of one release, a replica where the canary is not up compares the stable variant: the canary goes before
        before_it = exchange.revision == now.revision and canary and now.held
        return "new" if newer or before_it else "stranger"
    told = bool(now.draw and exchange.draw)
    if told and now.draw != exchange.draw:
        return "new" if newer else "stranger"
    if now.held and canary and newer:
        return "new"
    if now.gone is None or exchange.revision == now.gone:
        return "same"
    if exchange.revision < now.gone:
        return "stranger"
    return "same" if told and not now.held else "new"
