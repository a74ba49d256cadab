"""Budgets hold whatever dies: no sum of gateways spends one token more than the limit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.databases import url

from quantgate.errors import QuantgateError, UsageError
from quantgate.serve import Caller, LedgerClosed, OverBudget, Reservation
from quantgate.serve import _ledger_sql as sql
from quantgate.serve._ledger_sql import connect
from quantgate.serve.ledger import LeaseLedger
from quantgate.serve_config import Budget, PriceConfig

__all__ = ["url"]
ANN, BOB = Caller("k_ann", budget="ann"), Caller("k_bob")
SPENDER = Path(__file__).with_name("spender.py")
TWO = {
    "BF16": PriceConfig.model_validate({"prompt": "2/M", "answer": "4/M"}),
    "W4A16": PriceConfig.model_validate({"prompt": "1/M", "answer": "2/M"}),
}


def opened(url, folder, *, prices=None, **settings) -> LeaseLedger:
    given = {name: settings.pop(name) for name in ("tokens", "money", "requests") if name in settings}
    budget = Budget.model_validate(given)
    made = LeaseLedger(connect(url), folder, {"ann": budget}.get, prices, **settings)
    made.start()
    return made


def admitted(ledger: LeaseLedger, prompt: int, answer: int, caller: Caller = ANN) -> Reservation:
    found = asyncio.run(ledger.admit(caller, prompt, answer))
    assert found is not None
    return found


def charged(url: str) -> dict[str, int]:
    engine = connect(url)
    with engine.begin() as link:
        found = {row.unit: int(row.amount) for row in link.execute(sa.select(sql.SPENT))}
    engine.dispose()
    return found


def until(true, *, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def test_what_is_settled_is_what_the_database_says_in_the_end(url, tmp_path):
    ledger = opened(url, tmp_path, tokens="10k/day", requests="100/hour", money="1/month", prices=TWO)
    for used in (10, 0, 50):
        ledger.settle(admitted(ledger, 100, 50), 100, used, "W4A16")
    ledger.close()
    # 300 tokens of prompts at 1/M and 60 of answers at 2/M
    assert charged(url) == {"tokens": 360, "requests": 3, "money": 420_000}
    assert list(tmp_path.glob("*.slots")) == []


def test_a_caller_without_a_budget_costs_the_ledger_nothing(url, tmp_path):
    ledger = opened(url, tmp_path, tokens=1)
    assert ledger.reserve(BOB, 10**6, 10**6) is None
    assert asyncio.run(ledger.admit(BOB, 10**6, 10**6)) is None
    ledger.close()
    assert charged(url) == {}


def test_reserve_never_waits_and_asks_to_come_back_for_the_first_lease(url, tmp_path):
    ledger = opened(url, tmp_path, tokens="1k")
    with pytest.raises(OverBudget, match="in a moment") as soon:
        ledger.reserve(ANN, 1, 1)
    assert soon.value.retry_after_s == 0.1

    def had() -> bool:
        try:
            return ledger.reserve(ANN, 1, 1) is not None
        except OverBudget:
            return False

    until(had)
    ledger.close()


def test_the_last_token_may_be_spent_and_not_one_more(url, tmp_path):
    ledger = opened(url, tmp_path, tokens=100)
    for _ in range(9):
        ledger.settle(admitted(ledger, 5, 5), 5, 5)
    with pytest.raises(OverBudget, match="spent its tokens: 100 tokens in all; wait, or ask for a larger budget") as no:
        admitted(ledger, 5, 6)
    assert no.value.retry_after_s is None
    ledger.settle(admitted(ledger, 5, 5), 5, 5)
    with pytest.raises(OverBudget):
        admitted(ledger, 1, 0)
    ledger.close()
    assert charged(url) == {"tokens": 100}


def test_a_request_beyond_the_whole_budget_is_told_so(url, tmp_path):
    ledger = opened(url, tmp_path, tokens="100/day")
    admitted(ledger, 1, 1)
    with pytest.raises(OverBudget, match="may take 150 tokens and the key has 100 tokens a day; lower max_tokens"):
        admitted(ledger, 100, 50)
    ledger.close()


def test_requests_are_refused_until_their_window_ends(url, tmp_path):
    ledger = opened(url, tmp_path, requests="2/day")
    for _ in range(2):
        ledger.settle(admitted(ledger, 1, 1), 1, 1)
    with pytest.raises(OverBudget, match="2 requests a day") as no:
        admitted(ledger, 1, 1)
    assert no.value.retry_after_s is not None
    assert 0 < no.value.retry_after_s <= 86400
    ledger.close()


def test_money_is_reserved_at_the_dearest_price_and_settled_at_the_variants(url, tmp_path):
    ledger = opened(url, tmp_path, money="10", prices=TWO)
    held = admitted(ledger, 1_000_000, 500_000)
    assert held.money == 4.0
    ledger.settle(held, 1_000_000, 250_000, "W4A16")
    ledger.close()
    assert charged(url) == {"money": 1_500_000_000}


def test_an_answer_longer_than_foreseen_is_charged_all_the_same(url, tmp_path):
    ledger = opened(url, tmp_path, tokens=100)
    ledger.settle(admitted(ledger, 5, 5), 60, 100)
    ledger.close()
    assert charged(url) == {"tokens": 160}


def test_what_is_over_is_taken_from_the_next_lease(url, tmp_path):
    ledger = opened(url, tmp_path, tokens=100)
    ledger.settle(admitted(ledger, 5, 5), 5, 75)
    with pytest.raises(OverBudget):
        admitted(ledger, 11, 10)
    ledger.settle(admitted(ledger, 10, 10), 10, 10)
    ledger.close()
    assert charged(url) == {"tokens": 100}


def test_settling_twice_changes_nothing(url, tmp_path):
    ledger = opened(url, tmp_path, tokens=100)
    held = admitted(ledger, 10, 10)
    for _ in range(3):
        ledger.settle(held, 10, 0)
    ledger.close()
    assert charged(url) == {"tokens": 10}


def test_what_is_still_reserved_when_the_gateway_ends_counts_as_spent(url, tmp_path):
    ledger = opened(url, tmp_path, tokens=100)
    admitted(ledger, 10, 20)
    ledger.close()
    assert charged(url) == {"tokens": 30}
    with pytest.raises(LedgerClosed, match="the gateway ends"):
        admitted(ledger, 1, 1)


def test_an_idle_lease_is_given_back_to_other_gateways(url, tmp_path):
    one = opened(url, tmp_path / "one", tokens=100, idle_s=0.05)
    other = opened(url, tmp_path / "other", tokens=100, idle_s=0.05)
    one.settle(admitted(one, 10, 10), 10, 0)
    until(lambda: charged(url) == {"tokens": 10})
    other.settle(admitted(other, 45, 45), 45, 45)
    one.close()
    other.close()
    assert charged(url) == {"tokens": 100}


def processes(url: str, folders: list[Path], *words: object) -> list[subprocess.Popen[str]]:
    given = {**os.environ, "PYTHONPATH": "src:."}
    return [
        subprocess.Popen(
            [sys.executable, str(SPENDER), url, str(folder), *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            env=given,
        )
        for folder in folders
    ]


def totals(lines: list[str]) -> int:
    return sum(int(line.split()[1]) for line in lines if line.startswith("spent"))


def test_several_gateways_share_a_budget_and_none_overspends(url, tmp_path):
    running = processes(url, [tmp_path / str(n) for n in range(3)], 5000, 4, 200)
    outputs = [one.communicate(timeout=120)[0].splitlines() for one in running]
    assert [one.returncode for one in running] == [0, 0, 0]
    spent = sum(totals(lines) for lines in outputs)
    assert spent <= 5000
    assert spent > 4500, "the budget was left to lie in leases"
    assert charged(url) == {"tokens": spent}


def test_what_a_killed_gateway_had_not_taken_is_given_back_by_the_next_one(url, tmp_path):
    (killed,) = processes(url, [tmp_path], 5000, 2, 10, "hang")
    assert killed.stdout is not None
    lines = []
    for line in killed.stdout:
        lines.append(line)
        if line.startswith("holds"):
            break
    killed.kill()
    killed.wait()
    killed.stdout.close()
    certain = totals(lines) + 10  # what it held for a request counts: nobody knows what came of it
    assert charged(url)["tokens"] > certain
    opened(url, tmp_path, tokens=5000).close()
    assert charged(url) == {"tokens": certain}
    assert list(tmp_path.glob("*.slots")) == []


def test_after_the_machine_went_down_nothing_is_given_back(url, tmp_path):
    (killed,) = processes(url, [tmp_path], 5000, 1, 3, "hang")
    assert killed.stdout is not None
    assert any(line.startswith("holds") for line in killed.stdout)
    killed.kill()
    killed.wait()
    killed.stdout.close()
    before = charged(url)
    (file,) = tmp_path.glob("*.slots")
    data = bytearray(file.read_bytes())
    data[:8] = b"00000000"  # another start of the machine
    file.write_bytes(bytes(data))
    opened(url, tmp_path, tokens=5000).close()
    assert charged(url) == before


def test_a_living_gateway_keeps_its_leases_when_another_starts(url, tmp_path):
    one = opened(url, tmp_path, tokens="10k")
    held = admitted(one, 10, 10)
    before = charged(url)["tokens"]
    opened(url, tmp_path, tokens="10k").close()
    assert charged(url)["tokens"] == before
    one.settle(held, 10, 10)
    one.close()
    assert charged(url) == {"tokens": 20}


def test_without_the_database_a_lease_is_spent_to_its_end_and_then_nothing_is(postgres, tmp_path):
    ledger = opened(postgres.url(), tmp_path, tokens="6400/day", wait_s=10.0)
    ledger.settle(admitted(ledger, 50, 50), 50, 50)
    postgres.kill()
    spent = 100
    try:
        with pytest.raises(LedgerClosed, match="budgets cannot be checked"):
            for _ in range(200):
                ledger.settle(admitted(ledger, 50, 50), 50, 50)
                spent += 100
        assert spent < 6400
        until(lambda: ledger.trouble is not None)
    finally:
        postgres.start()

    def again() -> bool:
        try:
            ledger.settle(admitted(ledger, 5, 5), 5, 5)
        except LedgerClosed:
            return False
        return True

    until(again)
    assert ledger.trouble is None
    ledger.close()


def test_a_jumping_clock_opens_no_new_window(tmp_path):
    """The database of a clock that anybody sets: SQLite's is this machine's, so the steady clock is asked itself."""
    from quantgate.serve._ledger_time import SteadyClock, span_of

    clock = SteadyClock()
    assert clock.read(1_000_000.0, 50.0) == 1_000_000.0
    assert clock.read(1_000_010.0, 60.0) == 1_000_010.0
    ahead = clock.read(1_000_010.0 + 86_400, 60.0)
    assert span_of("day", ahead) == span_of("day", 1_000_010.0)
    assert clock.trouble is not None
    assert "jumped ahead" in clock.trouble
    assert clock.read(900_000.0, 70.0) >= ahead
    assert "jumped back" in str(clock.trouble)
    assert clock.read(1_000_030.0, 80.0) == 1_000_030.0
    assert clock.trouble is None


def test_a_lease_ends_with_its_window(url, tmp_path):
    """The boot clock is moved on by a day: what is left of yesterday's lease is spent by nobody."""
    ahead = [0.0]
    ledger = opened(url, tmp_path, tokens="1k/day", clock=lambda: time.monotonic() + ahead[0])
    ledger.settle(admitted(ledger, 5, 5), 5, 5)
    engine = connect(url)
    ahead[0] = 86_400.0
    admitted(ledger, 5, 5)
    ledger.close()
    assert charged(url)["tokens"] == 20
    engine.dispose()


def test_many_threads_reserve_and_settle_without_losing_a_token(tmp_path):
    url = f"sqlite:///{tmp_path / 'state.db'}"
    ledger = opened(url, tmp_path, tokens="1M", requests="10k")

    def work() -> None:
        for _ in range(200):
            ledger.settle(admitted(ledger, 3, 10), 3, 4)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    ledger.close()
    assert charged(url) == {"tokens": 800 * 7, "requests": 800}


def test_a_caller_that_leaves_while_it_waits_takes_nothing(url, tmp_path):
    ledger = opened(url, tmp_path, tokens="1k")

    async def leave() -> None:
        waits = asyncio.ensure_future(ledger.admit(ANN, 10, 10))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    asyncio.run(leave())
    ledger.settle(admitted(ledger, 5, 5), 5, 5)
    ledger.close()
    assert charged(url) == {"tokens": 10}


def test_tables_of_another_version_are_refused(url, tmp_path):
    opened(url, tmp_path, tokens=1).close()
    engine = connect(url)
    with engine.begin() as link:
        link.execute(sa.update(sql.ABOUT).where(sql.ABOUT.c.name == "version").values(value=9))
    with pytest.raises(QuantgateError, match="its tables are of version 9, expected 1"):
        opened(url, tmp_path, tokens=1)
    engine.dispose()


@pytest.mark.parametrize(
    ("address", "error", "sentence"),
    [
        ("no address", UsageError, "not a database's address"),
        ("mysql://x/y", UsageError, "'mysql' is not known"),
        ("postgresql://nobody@127.0.0.1:1/x", QuantgateError, "ledger: connection"),
    ],
)
def test_a_database_that_is_none_is_one_sentence(address, error, sentence, tmp_path):
    with pytest.raises(error) as told:
        opened(address, tmp_path, tokens=1)
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


REQUEST = st.tuples(st.integers(0, 30), st.integers(0, 30), st.floats(0, 1), st.booleans())


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 12), st.lists(REQUEST, max_size=40))
def test_whatever_is_asked_two_gateways_spend_no_more_than_the_limits(tmp_path_factory, tokens, requests, asked):
    folder = tmp_path_factory.mktemp("ledger")
    url = f"sqlite:///{folder / 'state.db'}"
    given = {"tokens": str(tokens), "requests": str(requests)}
    pair = [opened(url, folder / name, idle_s=0.2, **given) for name in ("one", "other")]
    spent = {"tokens": 0, "requests": 0}
    for prompt, answer, part, second in asked:
        try:
            held = admitted(pair[second], prompt, answer)
        except OverBudget:
            continue
        used = int(answer * part)
        pair[second].settle(held, prompt, used)
        spent["tokens"] += prompt + used
        spent["requests"] += 1
        assert spent["tokens"] <= tokens
        assert spent["requests"] <= requests
    for one in pair:
        one.close()
    assert {unit: amount for unit, amount in charged(url).items() if amount} == {
        unit: amount for unit, amount in spent.items() if amount
    }


OPENS = """
import sys, time
from pathlib import Path
from quantgate.serve._ledger_sql import connect, create
start, folder = float(sys.argv[1]), Path(sys.argv[2])
time.sleep(max(0.0, start - time.time()))
for at in range(40):
    while time.time() < start + at * 0.05:  # all of them at the same moment
        pass
    engine = connect(f"sqlite:///{folder / str(at)}.db")
    create(engine)
    engine.dispose()
"""


def test_processes_that_open_a_new_file_at_the_same_moment_all_get_it(tmp_path: Path) -> None:
    """Workers of a gateway start together; SQLite's own wait does not cover the switch to write-ahead logging."""
    start = str(time.time() + 3)
    command = [sys.executable, "-c", OPENS, start, str(tmp_path)]
    running = [
        subprocess.Popen(command, env=os.environ | {"PYTHONPATH": "src"}, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, "".join(told)
