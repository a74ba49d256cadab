"""Exchanges, in the order of their numbers in the journal -> the evidence of one trial. No clock, no chance, no disk.

The same rows in the same order give the same state, bit for bit, however often a watch was killed in between:
``Fold.of(fold.state(), ...)``, then ``remember`` for every row from ``rebuild_from`` on that was counted already.

What counts: exchanges that were drawn to a side, with the odds that they tell themselves, of exactly the two digests
that are on trial. Once a session: its first bad event of a signal, its first value of a quantity. What is pinned, late,
told twice or of another trial does not. Other bytes, or another draw of the same (standing.py), are another trial and
begin from nothing. A promotion begins a period, with evidence that is renewed within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from quantgate.errors import RecordError
from quantgate.serve import Exchange
from quantgate.stats.attribution import Counts
from quantgate.stats.renewal import log_mix
from quantgate.watch import Finding, Point, Trial, keeping
from quantgate.watch.alone import Alone, stated
from quantgate.watch.explaining import finding
from quantgate.watch.processes import MOST_SIGNALS, STARTS, Process, Rule, rules
from quantgate.watch.proving import Sizes
from quantgate.watch.signals import Signal
from quantgate.watch.standing import Pair, Standing, Uncounted, fit, pair_of
from quantgate.watch.steps import step_of
from quantgate.watch.taking import Taking
from quantgate.watch.units import SPAN, Clock, Rows, ended
from quantgate.watch_config import WatchConfig

MOST_ODDS = 256  # different ones, of a trial or a period


class Fold:
    """See the head of this file. ``number`` is that of the last row that was taken, ``at`` of the last counted."""

    def __init__(
        self,
        config: WatchConfig,
        target: str,
        signals: Sequence[Signal] | None = None,
        order: Sequence[str] = (),
    ) -> None:
        """``order``: of the bits of signals. Raises UsageError, UnknownName, MissingExtra."""
        self.config, self.target = config, target
        self.rules: tuple[Rule, ...] = rules(config, signals)
        self.number, self.at = 0, 0.0
        self.clock = Clock(config.late)
        self.standing: Standing | None = None
        self.uncounted = Uncounted()
        self.alone = Alone(stated(config, self.rules))
        on = [one.signal.name for one in self.rules]
        self.order = list(dict.fromkeys((*order, *on)))
        if len(self.order) > MOST_SIGNALS:  # of many upgrades: those that are gone give their bits back
            self.order = list(dict.fromkeys(on))
        self._rows = Rows()
        self.named: Trial | None = None
        self._fresh()

    def _fresh(self) -> None:
        """No evidence, and no session was met."""
        self.took = Taking(self.rules, self.order, self.uncounted)

    # rows in

    @property
    def rebuild_from(self) -> int:
        """The lowest number that ``remember`` must be given again after ``of``."""
        return max(1, self.number - SPAN + 1)

    def remember(self, number: int, exchange: Exchange) -> None:
        """A row that was counted before a restart."""
        self._rows.take(number, exchange)

    def add(self, number: int, exchange: Exchange) -> None:
        """The next row. One whose number is not higher than the last one's was counted, and changes nothing."""
        if number <= self.number:
            return
        self.number = number
        before = self._rows.take(number, exchange)
        if before is None:
            self.uncounted.twice += 1
            return
        end = ended(exchange)
        if not math.isfinite(end):
            self.uncounted.odd += 1
            return
        on_time = self.clock.see(end)
        if exchange.cohort == "pinned" and not exchange.shadow:
            return
        if not on_time:
            self.uncounted.late += 1
        elif exchange.shadow:
            self._copy(exchange)
        elif not exchange.side:
            self._without(exchange, before)
        elif self._on_trial(exchange):
            self._count(exchange, before)

    def _without(self, exchange: Exchange, before: Sequence[Exchange]) -> None:
        """A session that was drawn to no side: in a newer release than the trial's, the trial is gone."""
        now = self.standing
        if now is not None and not now.copied:
            now.aside += 1
            if exchange.revision > now.revision:
                now.gone = exchange.revision
        if exchange.cohort == "stable" and self.alone.bounds:
            self.at = exchange.at
            signals = {one.signal.name: one.signal for one in self.rules}
            self.alone.add(exchange, lambda signal: self.took.read(signal, exchange, before), signals)

    def _on_trial(self, exchange: Exchange) -> bool:
        """Whether it is one of the trial's; a newer trial than the one so far begins here."""
        if not (math.isfinite(exchange.odds) and 0.0 < exchange.odds < 1.0 and exchange.against):
            self.uncounted.odd += 1
            return False
        now, found = self.standing, fit(self.standing, exchange)
        if found == "stranger":
            self.uncounted.strangers += 1
            return False
        if now is None or found == "new":
            now = self._begin(pair_of(exchange), exchange)
        now.draw = now.draw or exchange.draw
        now.gone, now.copied = None, False
        return True

    def _begin(self, pair: Pair, exchange: Exchange) -> Standing:
        self._fresh()
        since = self.clock.elapsed_s
        self.standing = Standing(*pair, revision=exchange.revision, began_s=since, share_since_s=since)
        return self.standing

    # counting

    def _count(self, exchange: Exchange, before: Sequence[Exchange]) -> None:
        now, ours = self.standing, exchange.side == "trial"
        if now is None:
            return
        if ours and exchange.cohort == "stable" and not now.held:
            self._promoted(now)
        self._renew(now)
        self._place(now, exchange, ours)
        if exchange.odds not in self.took.drawn and len(self.took.drawn) >= MOST_ODDS:
            self.uncounted.crowded += 1
            return
        self.at = exchange.at
        if self.took.exchange(exchange, before, ours):
            now.quiet = [now.quiet[0] + 1, now.quiet[1] + 1]
        now.quiet[ours] = 0

    def _copy(self, exchange: Exchange) -> None:
        """A copy (shadow) of a prompt: for signals that hold two answers to one prompt against each other."""
        pair = (exchange.artifact, exchange.against)
        if not exchange.against or exchange.artifact == exchange.against:
            return
        now = self.standing
        other = now is not None and (now.variant, now.control) != pair and exchange.revision > now.revision
        if now is None or (other and (now.copied or now.gone is not None)):
            now = self._begin(pair, exchange)
            now.copied, now.variant_name = True, exchange.variant
        if (now.variant, now.control) != pair:
            self.uncounted.strangers += 1
            return
        if now.copied:
            now.revision = max(now.revision, exchange.revision)
            self.at = exchange.at
        now.copies += 1
        self.took.copy(exchange)

    # time

    def _place(self, now: Standing, exchange: Exchange, ours: bool) -> None:
        """Who is on which side, and with what share."""
        if ours:
            now.variant_name = now.variant_name or exchange.variant
            now.aside = 0
        else:
            now.control_name = now.control_name or exchange.variant
        if exchange.revision < now.revision:
            return
        now.revision, now.odds = exchange.revision, exchange.odds
        share = exchange.odds if now.held else exchange.share
        if share != now.share:
            now.share, now.share_since_s = share, self.clock.elapsed_s

    def _promoted(self, now: Standing) -> None:
        now.held, now.began_s, now.copied_at = True, self.clock.elapsed_s, 0
        self.took.again()
        for one in self.processes:
            one.begin(renewed=True)

    def _renew(self, now: Standing) -> None:
        """After a promotion: a copy of the evidence every now and then, and all anew at the end of a period."""
        if not now.held:
            return
        age_s = self.clock.elapsed_s - now.began_s
        if age_s >= self.config.period:
            self._promoted(now)
            return
        due = int(age_s * STARTS / self.config.period)
        while now.copied_at < due:
            now.copied_at += 1
            for one in self.processes:
                one.copy(now.copied_at)

    # what it says

    @property
    def processes(self) -> tuple[Process, ...]:
        return self.took.processes

    @property
    def trial(self) -> Trial | None:
        """None while not both sides are known by name; ``know`` tells what a release knows of them."""
        now = self.standing
        if now is None:
            return None
        if self.named is not None and (self.named.artifact, self.named.control_artifact) == (
            now.variant,
            now.control,
        ):
            return self.named
        if not (now.variant_name and now.control_name):
            return None
        return Trial(
            target=self.target,
            variant=now.variant_name,
            artifact=now.variant,
            control=now.control_name,
            control_artifact=now.control,
        )

    def know(self, trial: Trial) -> None:
        """Names of both sides, from the release; no evidence."""
        self.named = trial

    def sessions(self) -> tuple[int, int]:
        """Of the control and of the trial, since the evidence began."""
        ours = sum(row[1] for row in self.took.drawn.values())
        return sum(row[0] for row in self.took.drawn.values()) - ours, ours

    def sizes(self) -> Sizes:
        return Sizes(*self.sessions(), self.standing.copies if self.standing else 0)

    def drawn(self) -> Counts:
        """Odds -> [sessions, of them the trial's]; a request without a session is one."""
        return self.took.drawn

    def crossed(self) -> Process | None:
        """The process that is furthest beyond its threshold; None: none is. Cheap: ask after each batch of rows."""
        ratio = self.config.ratio
        found = [one for one in self.processes if one.crossed(ratio)]
        return max(found, key=lambda one: one.log_e(ratio) - one.rule.log_threshold, default=None)

    def log_e(self) -> float:
        """Weighted mean over all processes."""
        return log_mix((one.rule.weight, one.log_e(self.config.ratio)) for one in self.processes)

    def findings(self, *, lately: bool = False) -> tuple[Finding, ...]:
        """One for each process, the one nearest to its threshold first; ``lately``: with intervals of a moment ago."""
        if self.standing is None:
            return ()
        trial, step = self.trial, step_of(self.config, self.standing.share)
        names = (trial.variant, trial.control) if trial else (self.standing.variant_name or "the variant", "control")
        seen = self.sizes()
        found = [finding(one, self.config, names, step.margin, seen, lately=lately) for one in self.processes]
        return tuple(sorted(found, key=lambda one: one.log_threshold - one.log_e))

    def points(self, at: float) -> list[Point]:
        """Where each process stands, for a chart."""
        share = self.standing.share if self.standing else 0.0
        kept = ("signal", "direction", "log_e", "log_threshold", "trial", "control", "ratio", "low", "high")
        return [Point(at=at, share=share, **{key: getattr(one, key) for key in kept}) for one in self.findings()]

    # to the disk and back

    def state(self) -> dict[str, Any]:
        """JSON-able and exact. Some 200 kB at the most, a few while little was met."""
        return keeping.state(self)

    @classmethod
    def of(
        cls, state: Mapping[str, Any], config: WatchConfig, target: str, signals: Sequence[Signal] | None = None
    ) -> Self:
        """A signal that is new begins from nothing. Raises RecordError for what is no state of this version."""
        if state.get("version") != keeping.VERSION:
            raise RecordError(
                f"watch of {target}: its state is of version {state.get('version')}, expected {keeping.VERSION}; "
                "delete the row of watch_state, and evidence begins anew"
            )
        try:
            made = cls(config, target, signals, order=state["order"])
            keeping.load(made, state)
        except (KeyError, TypeError, ValueError) as broken:
            told = f"{type(broken).__name__}: {broken}"
            raise RecordError(
                f"watch of {target}: its state is broken ({told}); delete the row of watch_state, and evidence begins "
                "anew"
            ) from None
        return made
