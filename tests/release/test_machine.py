"""Whatever is done in whatever order: what is live is proven or the baseline, and nothing is lost on the way."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.release.given import BASE, decision_of, variant_of, verdict_of

from quantgate.errors import Moved, NotPromoted, UnknownName, UsageError
from quantgate.release import Live
from quantgate.release.checking import problems
from quantgate.release.history import same
from quantgate.release.lifecycle import hold, promote, ramp, rollback
from quantgate.release.store import Registry

NAMES = st.sampled_from("ABC")
SHARES = st.sampled_from([0.01, 0.05, 0.25, 0.5, 0.9, 1.0])
EMPTY = Path(tempfile.mkdtemp()) / "empty.db"  # made once, copied for each example


class Releases(RuleBasedStateMachine):
    """Against a model of a few lines: who has passed now, who had the traffic, what was live at the last look."""

    @initialize()
    def start(self) -> None:
        if not EMPTY.exists():
            registry = Registry.open(str(EMPTY), "ada", create=True)
            registry.register(decided={"fleet": decision_of("fleet")}, baseline=BASE)
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(EMPTY, self.folder / "quantgate.db")
        self.registry = Registry.open(str(self.folder / "quantgate.db"), "ada")
        self.passed: dict[str, bool] = {}  # by name, as the latest decision says
        self.ever: set[str] = set()  # that passed at any time
        self.stables = [BASE.name]
        self.decisions = 0
        self.last = self.registry.live("fleet")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            assert problems(self.registry).problems == ()
            shutil.rmtree(self.folder)

    @rule(name=NAMES, verdict=st.sampled_from(["pass", "pass", "fail", "inconclusive"]))
    def decide(self, name: str, verdict: str) -> None:
        self.decisions += 1
        one = variant_of(name)
        decided = decision_of("fleet", verdict_of(one, verdict), say=str(self.decisions))
        self.registry.register([one], decided={"fleet": decided}, baseline=BASE)
        self.passed[name] = verdict == "pass"
        self.ever |= {name} if self.passed[name] else set()

    @rule(name=NAMES, share=st.none() | SHARES, holdback=st.none() | st.sampled_from([0.0, 0.02, 0.2]))
    def promote(self, name: str, share: float | None, holdback: float | None) -> None:
        before = self.registry.live("fleet")
        try:
            live = promote(self.registry, "fleet", name, canary=share, holdback=holdback)
        except UnknownName:
            assert name not in self.passed
        except UsageError:
            assert share is not None and share + (before.holdback if holdback is None else holdback) > 1
        except NotPromoted:
            another = before.canary is not None
            assert not self.passed[name] or before.frozen or another or before.stable.name == name
        else:
            assert self.passed[name]
            wanted = live.stable if share is None else live.canary
            assert wanted is not None and wanted.name == name
            assert share is None or live.share == share
            self._stable(live)

    @precondition(lambda self: self.last.canary is not None)
    @rule(share=SHARES)
    def ramp(self, share: float) -> None:
        before = self.registry.live("fleet")
        assert before.canary is not None
        try:
            live = ramp(self.registry, "fleet", share)
        except UsageError:
            assert share + before.holdback > 1
        except NotPromoted:
            assert share < before.share or before.frozen or not self.passed[before.canary.name]
        else:
            assert live.share == share >= before.share
            assert (live.canary, live.salt) == (before.canary, before.salt)

    @rule(off=st.booleans())
    def hold(self, off: bool) -> None:
        assert hold(self.registry, "fleet", off=off).frozen is not off

    @rule(to=st.none() | st.sampled_from(["A", "B", "C", "baseline"]), automatic=st.booleans(), twice=st.booleans())
    def roll_back(self, to: str | None, automatic: bool, twice: bool) -> None:
        before = self.registry.live("fleet")
        try:
            move = rollback(self.registry, "fleet", to=to, why="test", automatic=automatic)
        except NotPromoted:
            assert (automatic and before.frozen) or to not in [*self.stables, "baseline"]
            return
        live = self.registry.live("fleet")
        assert live.canary is None and live.share == 0.0
        assert live.stable.name in self.stables
        assert to is None or live.stable.name == (BASE.name if to == "baseline" else to)
        assert (move is None) == (live == before)
        if to is None and before.canary is not None:
            assert live.stable == before.stable
        if twice:
            assert rollback(self.registry, "fleet", to=to, why="test") is None
            assert self.registry.live("fleet") == live
        self._stable(live)

    @rule(data=st.data())
    def act_on_an_old_look(self, data: st.DataObject) -> None:
        """What was decided on a revision that is past moves nothing."""
        live = self.registry.live("fleet")
        if live.revision == 1:
            return
        old = data.draw(st.sampled_from(self.registry.history("fleet")[1:])).live
        try:
            self.registry.move(old, old.model_copy(update={"revision": old.revision + 1, "share": 0.5}), "ramp")
        except Moved:
            assert self.registry.live("fleet") == live
        else:
            raise AssertionError("an old look moved the pointer")

    def _stable(self, live: Live) -> None:
        if live.stable.name not in self.stables:
            self.stables.append(live.stable.name)

    @invariant()
    def live_is_proven_or_the_baseline(self) -> None:
        if not hasattr(self, "registry"):
            return
        live = self.registry.live("fleet")
        for one in (live.stable, live.canary):
            assert one is None or same(one, BASE) or one.name in self.ever
        assert live.baseline == BASE and live.share + live.holdback <= 1
        assert (live.canary is None) == (live.share == 0.0)

    @invariant()
    def revisions_grow_by_one_with_each_move_and_with_nothing_else(self) -> None:
        if not hasattr(self, "registry"):
            return
        live, moves = self.registry.live("fleet"), self.registry.history("fleet")
        assert live.revision >= self.last.revision
        assert (live == self.last) == (live.revision == self.last.revision)
        assert [move.revision for move in moves] == list(range(live.revision, 0, -1))
        assert moves[0].live == live
        self.last = live


TestReleases = Releases.TestCase
TestReleases.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
