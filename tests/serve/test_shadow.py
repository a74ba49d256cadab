"""Copies are dropped first, bill nobody, and delay nobody."""

from __future__ import annotations

import asyncio

import pytest
from tests.serve.opened import HELLO

from quantgate.guard.admission import admit
from quantgate.serve import Arm, Caller, Choice, Exchange, LedgerClosed, Request, Reservation
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.shadow import ACCOUNT, Copies
from quantgate.serve.upstreams.http import HttpUpstream
from quantgate.serve_config import Budget, ShadowConfig

BASE, SHADOW = Arm("BF16", "sha256:b", "baseline"), Arm("W4A16", "sha256:c", "canary")
CHOICE = Choice(BASE, "stable", 0.25, 7)
OBJECT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


class Kept:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def put(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


class Purse:
    """A ledger of one account with so many tokens."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.accounts = tokens, set[str]()

    def reserve(self, caller: Caller, prompt_tokens: int, answer_tokens: int, variant: str = "") -> Reservation | None:
        self.accounts.add(caller.budget)
        if prompt_tokens + answer_tokens > self.tokens:
            raise LedgerClosed("empty")
        self.tokens -= prompt_tokens + answer_tokens
        return Reservation(caller.budget, prompt_tokens + answer_tokens, 0.0, 1)

    async def admit(
        self, caller: Caller, prompt_tokens: int, answer_tokens: int, variant: str = ""
    ) -> Reservation | None:
        return self.reserve(caller, prompt_tokens, answer_tokens, variant)

    def settle(self, reservation: Reservation, prompt_tokens: int, answer_tokens: int, variant: str = "") -> None:
        self.tokens += reservation.tokens - prompt_tokens - answer_tokens


def request(number: int = 0, **body) -> Request:
    asked = {"model": "m", "messages": HELLO, "max_tokens": 8, "stream": True, "stream_options": {}} | body
    return Request(f"r{number}", "chat", asked, Caller("k_ann", budget="ann"), f"s{number}", True, {}, 100)


def copied(requests: list[Request], upstream: ScriptedUpstream | None, *, ledger=None, until_s: float = 30.0, **config):
    """Offer all at once, wait until nothing is under way; the copies and their exchanges."""
    sink = Kept()

    async def run() -> Copies:
        http = HttpUpstream(upstream.url, "scripted") if upstream is not None else None
        if http is not None:
            await http.start()
        given = ShadowConfig.model_validate({"variant": "W4A16", "share": 1.0} | config)
        copies = Copies(given, SHADOW, lambda: http, sink, admit, target="laptop", ledger=ledger)
        for one in requests:
            copies.offer(one, CHOICE)
        async with asyncio.timeout(until_s):
            while copies.asked - len(sink.exchanges) or copies._queue or copies._tasks:
                await asyncio.sleep(0.005)
        if http is not None:
            await http.close()
        return copies

    return asyncio.run(run()), sink.exchanges


def test_a_copy_is_asked_whole_and_leaves_its_own_exchange():
    with ScriptedUpstream() as upstream:
        copies, (found,) = copied([request()], upstream)
        (body,) = upstream.asked
    assert not body.get("stream")
    assert "stream_options" not in body
    assert (found.id, found.shadow, found.variant, found.artifact) == ("r0", True, "W4A16", "sha256:c")
    assert (found.cohort, found.rule, found.share, found.revision) == ("pinned", "shadow", 0.25, 7)
    assert (found.key, found.session, found.status, found.step) == ("k_ann", "s0", 200, "passed")
    assert (copies.asked, copies.dropped) == (1, 0)
    assert found.text is None


def test_an_invalid_copy_is_recorded_as_one():
    with ScriptedUpstream(lambda _body: "no JSON") as upstream:
        _, (found,) = copied([request(response_format=OBJECT)], upstream)
    assert (found.step, found.faults, found.answered_by, found.structured) == ("failed", ("not_json",), "", True)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script("reset"), "cut"),
        (Script("malformed", after=0), "malformed"),
        (Script("status", status=500), "status"),
    ],
)
def test_an_upstream_that_fails_is_one_exchange_with_an_error(script, error):
    with ScriptedUpstream(always=lambda _body: script) as upstream:
        _, (found,) = copied([request()], upstream)
    assert found.error == error
    assert found.answered_by == ""


def test_a_full_queue_drops_and_counts():
    with ScriptedUpstream() as upstream:
        copies, exchanges = copied([request(number) for number in range(100)], upstream, queue=5, concurrency=1)
    assert copies.dropped == 95
    assert len(exchanges) == copies.asked == 5


def test_copies_have_a_budget_of_their_own_and_no_caller_pays():
    purse = Purse(300)
    with ScriptedUpstream() as upstream:
        copies, exchanges = copied(
            [request(number) for number in range(50)], upstream, ledger=purse, budget=Budget(), concurrency=1
        )
        assert (purse.accounts, len(exchanges)) == (set(), 50)
        budget = Budget.model_validate({"tokens": 300})
        copies, exchanges = copied(
            [request(number) for number in range(50)], upstream, ledger=purse, budget=budget, concurrency=1
        )
    assert purse.accounts == {ACCOUNT}
    assert 0 < len(exchanges) < 50
    assert copies.dropped == 50 - len(exchanges)
    assert purse.tokens >= 0


def test_no_more_than_the_concurrency_is_asked_at_once():
    with ScriptedUpstream(always=lambda _body: Script("slow", seconds=0.02)) as upstream:
        copied([request(number) for number in range(12)], upstream, concurrency=3)
        assert upstream.most_at_once <= 3


def test_a_variant_that_is_not_up_costs_nothing():
    copies, exchanges = copied([request()], None)
    assert (copies.dropped, exchanges) == (1, [])


def test_only_the_share_of_sessions_is_copied_and_never_the_variants_own_requests():
    async def run() -> Copies:
        config = ShadowConfig.model_validate({"variant": "W4A16", "share": 0.2, "queue": 10_000})
        copies = Copies(config, SHADOW, lambda: None, Kept(), admit)
        for number in range(2000):
            copies.offer(request(number), CHOICE)
        copies.offer(request(1), Choice(SHADOW, "canary", 1.0, 7))
        taken = len(copies._queue)
        await copies.close()
        assert abs(taken - 400) < 5 * (2000 * 0.2 * 0.8) ** 0.5
        copies.offer(request(0), CHOICE)
        return copies

    asyncio.run(run())
