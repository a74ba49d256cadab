"""What is counted once, and what is remembered: the same after a restart, bounded, and no clock is trusted alone."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from tests.watch.trials import START, exchange

from quantgate.watch.units import BEFORE, SPAN, SURE_AHEAD, SURE_BACK, Clock, Filter, Rows, Seen, key_of, mixed


def test_a_session_is_met_with_what_it_did_before_and_a_double_is_none():
    rows = Rows()
    assert rows.take(1, exchange(1, session="a")) == ()
    assert rows.take(2, exchange(2, session="b")) == ()
    assert [one.id for one in rows.take(3, exchange(3, session="a")) or ()] == ["r1"]
    assert rows.take(4, exchange(3, session="a")) is None
    assert [one.id for one in rows.take(5, exchange(5, session="a")) or ()] == ["r1", "r3"]


def test_a_copy_has_the_id_of_its_request_and_is_no_double():
    rows = Rows()
    assert rows.take(1, exchange(1)) == ()
    assert rows.take(2, exchange(1, shadow=True)) == ()
    assert rows.take(3, exchange(1, shadow=True)) is None


def test_what_is_older_than_ten_minutes_or_eight_exchanges_is_not_seen():
    rows = Rows()
    for number in range(1, 12):
        before = rows.take(number, exchange(number, session="a")) or ()
    assert [one.id for one in before] == [f"r{number}" for number in range(11 - BEFORE, 11)]
    assert rows.take(12, exchange(12, session="a", at=START + 10_000)) == ()


def test_rows_beyond_the_span_are_forgotten():
    rows = Rows()
    rows.take(1, exchange(1, session="a"))
    assert rows.take(SPAN, exchange(1, session="a")) is None, "still remembered"
    assert rows.take(3 * SPAN, exchange(1, session="a")) == (), "forgotten"
    assert len(rows._sessions) == len(rows._ids) == 1


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), max_size=60), st.integers(0, 60))
def test_rows_read_again_are_remembered_alike(told, cut):
    """Each is (id, session); the span is long enough here, so what is compared is doubles and order."""
    made = [(number, exchange(one, session=f"s{session}")) for number, (one, session) in enumerate(told, 1)]
    whole, later = Rows(), Rows()
    for number, one in made:
        whole.take(number, one)
    for number, one in made:  # as after a restart at the end: all are read again
        later.take(number, one)
    after = exchange(99, session="s1")
    assert whole.take(100, after) == later.take(100, after)


def test_short_memory_does_not_depend_on_rows_before_the_span():
    chance = random.Random(3)
    made = [(n, exchange(chance.randint(1, 30), session=f"s{chance.randint(0, 3)}")) for n in range(1, 300)]
    whole = Rows(span=20)
    for at, (number, one) in enumerate(made):
        whole.take(number, one)
        later = Rows(span=20)
        for again, other in made[max(0, at - 19) : at + 1]:
            later.take(again, other)
        assert whole._ids == later._ids
        assert whole._sessions == later._sessions


def test_one_clock_that_leaps_moves_no_time():
    clock = Clock(300.0)
    assert clock.see(1000.0)
    assert clock.see(1001.0)
    assert clock.see(90_000.0), "ahead is not late"
    assert clock.at == 1001.0
    assert clock.see(1002.0)
    assert not clock.see(600.0)
    assert clock.elapsed_s == 2.0


def test_a_clock_that_stays_ahead_or_back_is_believed_in_the_end():
    clock = Clock(300.0)
    clock.see(1000.0)
    for second in range(SURE_AHEAD):
        clock.see(90_000.0 + second)
    assert clock.at == 90_000.0
    assert clock.elapsed_s == 300.0, "a leap is worth no more than 'late'"
    told = [clock.see(2000.0 + second) for second in range(SURE_BACK + 1)]
    assert told == [False] * SURE_BACK + [True]
    assert clock.elapsed_s == 301.0


@given(st.lists(st.floats(0, 1e9), max_size=400))
def test_time_only_grows_whatever_the_clocks_say(times):
    clock = Clock(300.0)
    before = 0.0
    for at in times:
        clock.see(at)
        assert before <= clock.elapsed_s <= before + 300.0
        before = clock.elapsed_s
        assert Clock.of(clock.state(), 300.0) == clock


def test_a_filter_knows_what_it_was_told_and_takes_few_others_for_known():
    keys = [key_of(f"k{n}") for n in range(20_000)]
    made = Filter(1 << 17)
    assert sum(made.add(one) for one in keys[:19_000]) > 0.97 * 19_000
    assert all(one in made for one in keys[:19_000])
    strangers = sum(mixed(one, 1) in made for one in keys)
    assert strangers < 0.07 * len(keys)
    again = Filter.of(made.state())
    assert again.state() == made.state()
    assert all(one in again for one in keys[:19_000])


def test_a_filter_forgets_the_oldest_when_it_is_full_and_stays_as_small():
    made = Filter(1 << 10)
    for n in range(1000):
        made.add(key_of(str(n)))
    assert key_of("999") in made
    assert sum(key_of(str(n)) in made for n in range(500)) < 100
    assert len(made._now) == len(made._old) == 128


def test_sessions_are_known_exactly_for_a_while_and_then_as_counted():
    made = Seen()
    assert made.meet(1) == (True, 0)
    made.counted(1, 0b101)
    assert made.meet(1) == (False, 0b101)
    for key in range(2, Seen.EXACT + 100):
        made.meet(mixed(key, 0))
    assert made.meet(1) == (False, Seen.ALL)
    assert Seen.of(made.state()).state() == made.state()
