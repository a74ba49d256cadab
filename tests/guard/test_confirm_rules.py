"""The life of proposals under any order of steps, restarts and clock jumps, beside a model of what must hold."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from tests.guard.answers import calling

from quantgate.errors import ApprovalRefused
from quantgate.guard.confirm import Gate, Rule, Rules
from quantgate.guard.proposals import Journal

RULES = Rules(rules=(Rule(tool="pay"),), expires=100.0, waiting=1000)
CALLERS = st.sampled_from(["key1", "key2"])


class Lives(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1000.0
        self.owner: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self.due: dict[str, float] = {}
        self.yes: set[str] = set()
        self.no: set[str] = set()
        self.left: list[str] = []
        self.restart()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule()
    def restart(self) -> None:
        self.gate = Gate(RULES, Journal(self.folder / "approvals.jsonl"), now=lambda: self.now)

    @rule(by=st.floats(-150, 150, allow_nan=False))
    def clock(self, by: float) -> None:
        self.now += by

    def latest(self) -> float:
        """Of all events, those among them that put down an expiry."""
        return max([self.now, *(one.at for one in self.gate.proposals.all())])

    @rule(target=ids, caller=CALLERS, amount=st.integers(0, 3))
    def propose(self, caller: str, amount: int) -> str:
        told = self.gate.hold(calling(("pay", f'{{"amount": {amount}}}')), caller=caller, canary=False)
        assert told is not None
        pending = told["quantgate"]["pending_approval"]
        id = str(pending["id"])
        self.owner[id], self.hashes[id] = caller, pending["hash"]
        self.due[id] = self.latest() + RULES.expires
        return id

    def attempt(self, act: Any) -> bool:
        try:
            act()
        except ApprovalRefused:
            return False
        return True

    @rule(id=ids, other=ids)
    def approve(self, id: str, other: str) -> None:
        now = self.latest()
        done = self.attempt(lambda: self.gate.approve(id, by="ann", hash=self.hashes[other]))
        if done:
            assert id == other and id not in self.yes | self.no
            assert now < self.due[id]
            self.yes.add(id)

    @rule(id=ids)
    def deny(self, id: str) -> None:
        if self.attempt(lambda: self.gate.deny(id, by="ann")):
            assert id not in self.yes | self.no
            self.no.add(id)

    @rule(id=ids, caller=CALLERS, edited=st.booleans())
    def redeem(self, id: str, caller: str, edited: bool) -> None:
        calls = [("pay", '{"amount": 9}')] if edited else None
        due = self.due[id] > self.latest()
        may = id in self.yes and id not in self.left and caller == self.owner[id] and not edited and due
        known = {one.proposal.id: one.status for one in self.gate.proposals.all()}
        done = self.attempt(lambda: self.gate.redeem(id, caller=caller, calls=calls))
        assert done <= may
        assert done == may or known[id] == "expired"
        if done:
            self.left.append(id)

    @rule()
    def look(self) -> None:
        assert all(one.proposal.expires > self.now for one in self.gate.waiting())

    @invariant()
    def nothing_left_twice_or_without_a_yes(self) -> None:
        if hasattr(self, "left"):
            assert len(self.left) == len(set(self.left))
            assert set(self.left) <= self.yes


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
