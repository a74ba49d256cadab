"""Evidence of a trial and what is live -> Verdict: roll back, hold or promote, each with its reason.

Roll back: one process has reached its threshold, and nothing speaks against the counts themselves. Promote: every
signal that promotes has excluded its margin, on enough sessions, long enough at this share. Everything else is "hold,
because": a side without traffic, sessions that do not arrive as they were drawn, evidence that is behind, a release
that is newer than what was counted. A hold by a person stops promotions; a rollback is judged as ever, so that the
person hears of it, and it is the registry that refuses to move.
"""

from __future__ import annotations

import math
from typing import Any

from quantgate.release import Live
from quantgate.stats import attribution
from quantgate.stats.renewal import decided_at
from quantgate.watch import Action, Finding, Trial, Verdict
from quantgate.watch.alone import MEAN_UNITS
from quantgate.watch.explaining import count, figure, lasting, times
from quantgate.watch.fold import Fold
from quantgate.watch.proving import enough
from quantgate.watch.standing import Standing
from quantgate.watch.steps import next_share, share_of, step_of, trial_of
from quantgate.watch.waiting import awaits, hindrances, more, not_here, proofs
from quantgate.watch_config import WatchConfig

QUIET = 20.0  # sessions that a side should have had since its last
SKEWED = 1.25  # times as many sessions as drawn, before they are called not as drawn


def judge(fold: Fold, *, live: Live | None, config: WatchConfig, now: float, behind_s: float = 0.0) -> Verdict | None:
    """None: nothing is on trial, and nothing was. ``now``: seconds since 1970, for a verdict that rests on nothing.

    ``live`` is None where no registry says what is: then what the newest exchanges say counts.
    """
    wanted = trial_of(live) if live is not None else None
    known = wanted or _copied(fold, live)
    if known is not None:
        fold.know(known)
    case = _Case(fold, live, config, now, behind_s)
    if wanted is not None and not _same(fold.standing, wanted):
        return case.without(wanted)
    if fold.trial is None:
        return None
    if wanted is None and live is not None:
        return case.shadow(fold.trial) if fold.standing and fold.standing.copied else case.gone(fold.trial)
    return case.trial(fold.trial)


def _same(standing: Standing | None, trial: Trial) -> bool:
    return standing is not None and (standing.variant, standing.control) == (trial.artifact, trial.control_artifact)


def _copied(fold: Fold, live: Live | None) -> Trial | None:
    """A variant that only answers copies, and whose answers are held against the stable variant's."""
    one = fold.standing
    if live is None or one is None or not one.copied or one.control != live.stable.artifact:
        return None
    return Trial(
        target=live.target,
        variant=one.variant_name,
        artifact=one.variant,
        control=live.stable.name,
        control_artifact=one.control,
        control_is_baseline=live.stable.artifact == live.baseline.artifact,
    )


class _Case:
    """One moment of a trial."""

    def __init__(self, fold: Fold, live: Live | None, config: WatchConfig, now: float, behind_s: float) -> None:
        self.fold, self.live, self.config, self.now, self.behind_s = fold, live, config, now, behind_s
        standing = fold.standing
        self.share = share_of(live) if live is not None else standing.share if standing else 0.0
        self.revision = live.revision if live is not None else standing.revision if standing else 0

    def without(self, trial: Trial) -> Verdict:
        """It is live, and nothing of it was counted."""
        alone = self._alone(trial)
        if alone is not None:
            return alone
        return self._verdict(trial, "hold", f"no session of {trial.variant} was counted yet", findings=())

    def gone(self, trial: Trial) -> Verdict:
        why = f"{trial.variant} is not live any more: release {self.revision} has no trial"
        return self._verdict(trial, "hold", why, share=0.0)

    def shadow(self, trial: Trial) -> Verdict:
        """Copies alone: it has no traffic that could be taken back, and may get its first."""
        worst = self.fold.crossed()
        findings = self.fold.findings(lately=worst is None)
        pairs = [one for one in findings if self._kind(one) == "pair"]
        if worst is not None:
            first = self._finding(findings, worst.rule.signal.name, worst.rule.direction)
            why = f"{trial.variant} answers copies only, and does worse: {first.sentence}"
            return self._verdict(trial, "hold", why, findings=findings, share=0.0)
        step = self.config.steps[0]
        copies = self.fold.standing.copies if self.fold.standing else 0
        missing = (
            [] if copies >= step.least else [f"{more(step.least - copies, 'copy')} ({copies:,} of {step.least:,})"]
        )
        missing += [awaits(self, one, trial) for one in pairs if one.log_better < enough(self.config.beta)]
        missing += hindrances(self)
        if missing or not pairs:
            why = f"{trial.variant} answers copies only: {count(copies, 'prompt')} so far"
            return self._verdict(trial, "hold", why, findings=findings, share=0.0, missing=missing)
        why = f"{trial.variant} is no worse on {count(copies, 'prompt')} that {trial.control} answered too"
        return self._verdict(trial, "promote", why, findings=findings, share=0.0, next_share=step.share)

    def trial(self, trial: Trial) -> Verdict:
        fold = self.fold
        standing = fold.standing
        if standing is None:
            return self.without(trial)
        alone = self._alone(trial)
        if alone is not None:
            return alone
        doubt = self._doubt(trial, standing)
        crossed = fold.crossed()
        findings = fold.findings(lately=crossed is None)
        if crossed is not None:
            first = self._finding(findings, crossed.rule.signal.name, crossed.rule.direction)
            if doubt:
                why = f"{doubt}; otherwise it would go back: {first.sentence}"
                return self._verdict(trial, "hold", why, findings=findings, signal=first.signal)
            return self._verdict(
                trial, "rollback", f"{trial.variant}: {first.sentence}", findings=findings, signal=first.signal
            )
        stalled = doubt or self._stalled(trial, standing)
        if stalled:
            return self._verdict(trial, "hold", stalled, findings=findings, missing=[stalled])
        return self._forward(trial, standing, findings)

    # forward

    def _forward(self, trial: Trial, standing: Standing, findings: tuple[Finding, ...]) -> Verdict:
        goal = next_share(self.config, self.share)
        nearest = findings[0]
        calm = f"nothing shows that {trial.variant} is worse than {trial.control}"
        if nearest.log_e > 1.0:
            calm = f"{trial.variant} is not shown to be worse than {trial.control}; nearest to it: {nearest.sentence}"
        if standing.held or goal is None:
            return self._verdict(trial, "hold", calm, findings=findings)
        missing = proofs(self, trial, standing, findings)
        absent = not_here(self.fold)
        told = f"{self.share * 100:g} %", f"{goal * 100:g} %"
        if missing:
            why = f"{calm}; {told[0]} of sessions until {count(len(missing), 'proof')} for {told[1]}"
            why = f"{why} {_is_are(missing)} there"
            return self._verdict(trial, "hold", why, findings=findings, missing=missing, not_here=absent)
        margin = step_of(self.config, self.share).margin
        why = (
            f"{trial.variant} is less than {times(margin)} as bad as {trial.control} in every signal that counts, on "
            f"{count(self.fold.sessions()[1], 'session')}: from {told[0]} to {told[1]} of sessions"
        )
        if absent:
            why += f"; not asked for: {'; '.join(absent)}"
        return self._verdict(trial, "promote", why, findings=self.fold.findings(), next_share=goal, not_here=absent)

    # what speaks against the counts

    def _doubt(self, trial: Trial, standing: Standing) -> str:
        """Why nothing is decided on these counts; empty: nothing speaks against them."""
        control, ours = self.fold.sessions()
        if standing.gone is not None:
            return f"release {standing.gone} gives {trial.variant} no sessions; is it up?"
        if self.live is not None and self.live.revision > standing.revision:
            return f"release {self.live.revision} is newer than what was counted, of release {standing.revision}"
        if self.behind_s > self.config.late:
            return f"the evidence is {lasting(self.behind_s)} behind the newest exchange"
        for name, n in ((trial.variant, ours), (trial.control, control)):
            if n == 0:
                return f"no session of {name} was counted yet"
        if standing.quiet[0] * (1.0 - standing.odds) > QUIET:
            return f"{trial.control} has had none of the last {count(standing.quiet[0], 'session')}"
        return self._skewed(trial, trial.control, self.fold.drawn())

    def _stalled(self, trial: Trial, standing: Standing) -> str:
        """Why the trial gets no further, though nothing speaks against what was counted."""
        for n, part in ((standing.quiet[1], standing.odds), (standing.aside, standing.share)):
            if n * part > QUIET:
                return f"{trial.variant} has had none of the last {count(n, 'session')}; is it up?"
        return self._skewed(trial, trial.variant, attribution.mirrored(self.fold.drawn()))

    def _skewed(self, trial: Trial, missing: str, drawn: attribution.Counts) -> str:
        """Sessions are drawn by known odds, whatever becomes of them: if they do not arrive so, some are missing."""
        if attribution.log_worse(drawn, SKEWED) < decided_at(self.config.alpha):
            return ""
        control, ours = self.fold.sessions()
        return (
            f"sessions do not arrive as they were drawn: {ours:,} of {trial.variant} and {control:,} of "
            f"{trial.control}, so exchanges of {missing} are missing"
        )

    def _alone(self, trial: Trial) -> Verdict | None:
        """Without a holdback nothing is compared: what the gate stated is all there is."""
        live = self.live
        if live is None or live.canary is not None or live.holdback > 0.0:
            return None
        alarm = self.fold.alone.alarm() if self.fold.alone.artifact == trial.artifact else None
        if alarm is not None:
            name, one = alarm
            why = (
                f"{trial.variant}: {self._about(name)} in {one.bad:,} of {count(one.units, 'session')}, where "
                f"watch.bounds allows {one.bound * 100:g} %; evidence {figure(one.log_m)} against the "
                f"{figure(math.log(MEAN_UNITS))} needed"
            )
            return self._verdict(trial, "rollback", why, findings=(), signal=name, log_e=one.log_m)
        keep = f"keep a holdback, with: quantgate promote {live.target} {trial.variant} --holdback 2%"
        known = self.fold.alone.detectors if self.fold.alone.artifact == trial.artifact else {}
        told = ", ".join(
            f"{self._about(name)} in {one.bad:,} of {count(one.units, 'session')} ({one.bound * 100:g} % allowed)"
            for name, one in known.items()
        )
        if told:
            why = f"nothing is compared but what watch.bounds states: {told}; better {keep}"
        elif self.fold.alone.bounds:
            why = f"nothing is compared, and no session of {trial.variant} was counted yet; better {keep}"
        else:
            why = (
                f"nothing is compared: {trial.variant} has all sessions; {keep}; or state in serve.yaml what it may "
                "do, such as watch: {bounds: {validation_failure: 2%}}"
            )
        return self._verdict(trial, "hold", why, findings=())

    # records

    def _about(self, name: str) -> str:
        return next((rule.signal.about for rule in self.fold.rules if rule.signal.name == name), name)

    def _kind(self, one: Finding) -> str:
        return next(rule.signal.kind for rule in self.fold.rules if rule.signal.name == one.signal)

    @staticmethod
    def _finding(findings: tuple[Finding, ...], name: str, direction: str) -> Finding:
        return next(one for one in findings if (one.signal, one.direction) == (name, direction))

    def _verdict(self, trial: Trial, action: Action, because: str, **told: Any) -> Verdict:
        told.setdefault("findings", self.fold.findings(lately=True))
        told.setdefault("log_e", self.fold.log_e() if told["findings"] else 0.0)
        for key in ("missing", "not_here"):
            told[key] = tuple(told.get(key, ()))
        return Verdict(
            trial=trial,
            action=action,
            because=because,
            at=self.fold.at or self.now,
            number=self.fold.number,
            revision=self.revision,
            share=told.pop("share", self.share),
            **told,
        )


def _is_are(missing: list[str]) -> str:
    return "is" if len(missing) == 1 else "are"
