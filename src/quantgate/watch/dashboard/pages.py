"""The pages that only show: each asks what is known and fills one template."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quantgate.errors import QuantgateError
from quantgate.release.history import same
from quantgate.serve.refusals import Refused
from quantgate.watch import Alarm, Finding
from quantgate.watch.dashboard import answers, evidence, facts, moves, rows, series
from quantgate.watch.dashboard.answers import Answer
from quantgate.watch.dashboard.known import Known, tried
from quantgate.watch.dashboard.sessions import Sessions, Viewer

NAV = (
    ("", "Now"),
    ("alarms", "Alarms"),
    ("latency", "Latency"),
    ("releases", "Releases"),
    ("evidence", "Evidence"),
    ("help", "Help"),
)
Query = Mapping[str, str]


class Pages:
    """``known`` answers; ``sessions`` gives each viewer's forms their token."""

    def __init__(self, known: Known, sessions: Sessions) -> None:
        self.known, self.sessions = known, sessions

    def frame(self, viewer: Viewer, here: str = "") -> dict[str, Any]:
        """What every page needs."""
        parts = self.known.parts
        return {
            "nav": NAV,
            "here": here,
            "target": self.known.target,
            "viewer": viewer,
            "token": self.sessions.form_token(viewer) if viewer.key else "",
            "open_to_all": parts.open_to_all,
            "can_move": self.can_move(),
            "data": parts.config.data,
        }

    def can_move(self) -> str:
        """Why nobody moves anything here; empty where an admin may."""
        parts = self.known.parts
        if parts.registry is None:
            return "What is live stands in serve.yaml here; serve from a registry to move it."
        if not parts.config.admin:
            return "This gateway was started with 'admin: false'; move releases by the command line."
        return ""

    def home(self, viewer: Viewer, query: Query) -> Answer:
        part = self._now_text(viewer)
        now = self.known.now()
        done = next((one for one in now.moves if str(one.revision) == query.get("moved")), None)
        told = facts.move_sentence(done) if done is not None else ""
        return answers.page(
            "home.html", part=part, mark=answers.mark_of(part), done=done, told=told, **self.frame(viewer, "")
        )

    def now_part(self, viewer: Viewer, seen: str) -> Answer:
        """What htmx asks for again and again."""
        text = self._now_text(viewer)
        return answers.part(text, seen)

    def _now_text(self, viewer: Viewer) -> str:
        known, may = self.known, viewer.may_move
        return known.memo(("now text", may), 0.5, lambda: answers.rendered("_now.html", **self._now(viewer)))

    def _now(self, viewer: Viewer) -> dict[str, Any]:
        now = self.known.now()
        about = now.verdict if facts.on_trial(now.live, now.verdict) else None
        found = rows.rows_of(about.findings) if about is not None else []
        state = facts.state_of(now.live, now.verdict, now.alarms, found, now.behind_s)
        config = self.known.parts.config.watch
        return {
            "now": now,
            "live": now.live,
            "verdict": about,
            "state": state,
            "rows": [one for one in found if not one.quiet],
            "quiet": [one for one in found if one.quiet],
            "traffic": facts.traffic(now.live) if now.live is not None else [],
            "since": next((one for one in now.moves if one.what not in ("hold", "lift")), None),
            "held": next((one for one in now.moves if one.what == "hold"), None),
            "alarm": now.alarms[0] if now.alarms else None,
            "offered": moves.offered(now.live) if not self.can_move() else (),
            "can_move": self.can_move(),
            "viewer": viewer,
            "alpha": config.alpha,
            "threshold": -math.log(config.alpha),
            "last_rows": rows.rows_of(now.alarms[0].verdict.findings) if state.word == "Rolled back" else [],
            "enabled": config.enabled,
            "axis": [(one, rows.place(one)) for one in rows.MARKS],
        }

    def signal(self, viewer: Viewer, name: str, query: Query) -> Answer:
        now = self.known.now()
        finding = _finding(now.verdict.findings if now.verdict else (), name, query.get("direction", ""))
        if finding is None or now.verdict is None:
            raise Refused(404, "not_found", f"'{name[:80]}' is no signal of the trial that is shown; see /dashboard")
        troubles: list[str] = []
        verdict, direction = now.verdict, finding.direction
        points = tried(troubles, "the points", lambda: self.known.points(verdict, name, direction), ())
        examples = tried(troubles, "the exchanges", lambda: self.known.exchanges(finding.examples), ())
        return answers.page(
            "signal.html",
            row=rows.row_of(finding),
            finding=finding,
            trial=now.verdict.trial,
            verdict=now.verdict,
            table=series.table(points),
            examples=examples,
            troubles=troubles,
            axis=[(one, rows.place(one)) for one in rows.MARKS],
            others=[one for one in rows.rows_of(now.verdict.findings)],
            **self.frame(viewer, ""),
        )

    def signal_data(self, name: str, query: Query) -> Answer:
        now = self.known.now()
        if now.verdict is None:
            return answers.data({"at": []})
        verdict, direction = now.verdict, query.get("direction", "more")
        key = ("columns", verdict.trial.digest, name, direction)
        found = self.known.memo(key, 1.0, lambda: series.columns(self.known.points(verdict, name, direction)))
        return answers.data(found)

    def alarms(self, viewer: Viewer) -> Answer:
        now = self.known.now()
        return answers.page("alarms.html", now=now, alarms=now.alarms, **self.frame(viewer, "alarms"))

    def alarm(self, viewer: Viewer, id: str) -> Answer:
        found = self.known.standings.alarm(id)
        if found is None or found.verdict.trial.target != self.known.target:
            raise Refused(404, "not_found", f"there is no alarm '{id[:80]}' here; see /dashboard/alarms")
        troubles: list[str] = []
        ids = _examples(found)
        exchanges = tried(troubles, "the exchanges", lambda: self.known.exchanges(ids), ())
        gone = [one for one in ids if one not in {each.id for each in exchanges}]
        return answers.page(
            "alarm.html",
            alarm=found,
            rows=rows.rows_of(found.verdict.findings),
            exchanges=exchanges,
            gone=gone,
            troubles=troubles,
            axis=[(one, rows.place(one)) for one in rows.MARKS],
            **self.frame(viewer, "alarms"),
        )

    def exchange(self, viewer: Viewer, id: str) -> Answer:
        found = self.known.exchanges([id])
        if not found or found[0].target != self.known.target:
            raise Refused(404, "not_found", f"there is no exchange '{id[:80]}' here; they are kept for some days only")
        return answers.page("exchange.html", exchanges=found, one=found[0], **self.frame(viewer, "alarms"))

    def latency(self, viewer: Viewer) -> Answer:
        troubles: list[str] = []
        found = tried(troubles, "exchanges", self.known.latency, None)
        return answers.page("latency.html", latency=found, troubles=troubles, **self.frame(viewer, "latency"))

    def releases(self, viewer: Viewer) -> Answer:
        now = self.known.now()
        troubles: list[str] = []
        decided = tried(troubles, "decisions", self._decided, ())
        return answers.page(
            "releases.html",
            now=now,
            live=now.live,
            traffic=facts.traffic(now.live) if now.live is not None else [],
            moves=[(one, facts.move_sentence(one)) for one in now.moves],
            decided=decided,
            offered=moves.offered(now.live) if not self.can_move() else (),
            troubles=[*troubles, *now.troubles],
            **self.frame(viewer, "releases"),
        )

    def _decided(self) -> list[tuple[Any, Any, bool]]:
        """Every variant of the target with what was decided last, and whether it may be tried now."""
        link, live = self.known.parts.registry, self.known.live
        if link is None or live is None:
            return []
        registry, found = link.get(), list[tuple[Any, Any, bool]]()
        for one in registry.variants(self.known.target):
            if one.is_baseline or any(same(one, other) for other, _, _ in found):
                continue
            decided = registry.decided(self.known.target, one.artifact, one.engine)
            free = live.canary is None and not live.frozen and not same(one, live.stable)
            found.append((one, decided, free and decided is not None and decided.passed))
        return found

    def evidence(self, viewer: Viewer) -> Answer:
        now, link = self.known.now(), self.known.parts.registry
        subject = facts.trial_variant(now.live)
        shown = subject if subject is not None else (now.live.stable if now.live else None)
        troubles: list[str] = []
        proof = None
        if link is not None and shown is not None:
            proof = tried(troubles, "the proof", lambda: evidence.proof_of(link.get(), self.known.target, shown), None)
        return answers.page(
            "evidence.html",
            variant=shown,
            proof=proof,
            live=now.live,
            troubles=troubles,
            **self.frame(viewer, "evidence"),
        )

    def report(self, name: str) -> Answer:
        """A page of the run that made what is live, kept from doing anything here."""
        subject = facts.trial_variant(self.known.live)
        if subject is None:
            raise Refused(404, "not_found", "the baseline alone is live, and it has no report of its own")
        try:
            text = evidence.report_page(subject, name)
        except QuantgateError as problem:
            raise Refused(404, "not_found", str(problem)) from None
        return answers.written(text, policy=answers.REPORT_POLICY)

    def help(self, viewer: Viewer) -> Answer:
        config = self.known.parts.config.watch
        return answers.page("help.html", config=config, **self.frame(viewer, "help"))


def _finding(findings: tuple[Finding, ...], name: str, direction: str) -> Finding | None:
    own = [one for one in findings if one.signal == name]
    return next((one for one in own if one.direction == direction), own[0] if own else None)


def _examples(alarm: Alarm) -> list[str]:
    """Ids of exchanges, those of the signal that decided first."""
    own = sorted(alarm.verdict.findings, key=lambda one: one.signal != alarm.verdict.signal)
    told = [id for one in own if one.signal == alarm.verdict.signal or not alarm.verdict.signal for id in one.examples]
    return list(dict.fromkeys(told))[:25]
