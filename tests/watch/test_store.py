"""Evidence and its place are saved at once or not at all, by who leads alone; points are thinned, alarms are kept."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from tests.serve.test_exchanges import exchange
from tests.watch.databases import store, url
from tests.watch.made import TRIAL, alarm, point, verdict

from quantgate.errors import QuantgateError, RecordError
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Journal, Reader
from quantgate.watch._tables import ABOUT, STATES
from quantgate.watch.store import MOMENTS, Delivery, Deposed, Evidence, Step, Store

__all__ = ["store", "url"]
DAY_S = 86400.0
STATE = {"counts": [0.1 + 0.2, 1e-320, 2**70], "text": "ü"}


def of(number: int, state: dict[str, Any] | None = None) -> Evidence:
    return Evidence(number, state, TRIAL.digest)


def test_what_is_saved_is_read_back_exactly_by_another_process(store, url):
    fence = store.claim("fleet", "one", begins=5)
    assert store.load("fleet") == Evidence(5, None)
    assert (store.verdict("fleet"), store.alarms("fleet"), store.leader("fleet")) == (None, [], "one")
    store.save("fleet", fence, Step(of(7, STATE), verdict(), [point(60.0)], [alarm()]))
    other = Store(connect(url))
    assert other.load("fleet") == of(7, STATE)
    assert other.verdict("fleet") == verdict()
    assert other.points(TRIAL.digest) == [point(60.0)]
    assert other.alarms("fleet") == [alarm()] == [other.alarm(alarm().id)]
    assert (other.load("laptop"), other.verdict("laptop"), other.leader("laptop"), other.alarm("x")) == (
        None, None, "", None,
    )  # fmt: skip
    other.close()


def test_a_save_of_one_who_was_deposed_keeps_nothing_of_it(store):
    old = store.claim("fleet", "one")
    store.save("fleet", old, Step(of(7, STATE)))
    new = store.claim("fleet", "two")
    assert new > old
    with pytest.raises(Deposed, match="another process leads fleet"):
        store.save("fleet", old, Step(of(9, {}), verdict(), [point(60.0)], [alarm()]))
    assert store.load("fleet") == of(7, STATE)
    assert (store.verdict("fleet"), store.points(TRIAL.digest), store.alarms("fleet")) == (None, [], [])
    store.save("fleet", new, Step(of(8, STATE)))
    store.save("laptop", store.claim("laptop", "one"), Step(of(1, STATE)))  # of another target he may still lead


def test_of_many_who_claim_at_once_each_gets_a_fence_of_its_own(store):
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(store.claim("fleet", "x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 9))


def test_a_save_that_fails_in_its_middle_keeps_nothing_of_it(store):
    fence = store.claim("fleet", "one")
    store.save("fleet", fence, Step(of(7, STATE)))
    nameless = Delivery(None, alarm().id, "h", "host", next_at=0.0)  # type: ignore[arg-type]
    with pytest.raises(QuantgateError):
        store.save("fleet", fence, Step(of(9, {}), verdict(), [point(60.0)], [alarm()], [nameless]))
    assert store.load("fleet") == of(7, STATE)
    assert (store.verdict("fleet"), store.points(TRIAL.digest), store.alarms("fleet")) == (None, [], [])


def test_an_alarm_is_settled_in_its_row_and_tells_what_webhooks_answered(store):
    fence = store.claim("fleet", "one")
    store.save("fleet", fence, Step(alarms=[alarm(), alarm(revision=3)]))
    assert [one.verdict.revision for one in store.pending("fleet")] == [2, 3]
    done = alarm().model_copy(update={"done": "moved", "told": "revision 3", "done_at": 1000.5})
    post = Delivery("d", done.id, "hook", "hooks.example", next_at=5.0)
    store.save("fleet", fence, Step(alarms=[done], deliveries=[post]))
    assert [one.verdict.revision for one in store.pending("fleet")] == [3]
    assert [one.verdict.revision for one in store.alarms("fleet")] == [3, 2]  # the newest first
    assert len(store.alarms("fleet", limit=1)) == 1
    assert store.due("fleet") == [post]
    assert store.due("laptop") == []
    sent = Delivery("d", done.id, "hook", "hooks.example", next_at=5.0, tries=1, done=True, told="answered 200, try 1")
    store.save("fleet", fence, Step(deliveries=[sent]))
    assert store.due("fleet") == []
    found = store.alarm(done.id)
    assert found == done.model_copy(update={"webhooks": ("hooks.example: answered 200, try 1",)})


def test_one_point_a_minute_is_kept_and_ten_minutes_of_old_ones(url):
    now = [100 * DAY_S]
    store = Store(connect(url), clock=lambda: now[0])
    store.create()
    fence = store.claim("fleet", "one")
    begin = now[0] - 2 * DAY_S
    wanted = [point(begin + 60.0 * at, log_e=float(at)) for at in range(2 * 1440)]
    store.save("fleet", fence, Step(of(1), points=wanted))
    store.save("fleet", fence, Step(of(2), points=[point(wanted[-1].at + 30.0, log_e=99.0)]))  # of the same minute
    assert len(store.points(TRIAL.digest, since=now[0] - 60.0)) == 1
    assert store.points(TRIAL.digest, since=now[0] - 60.0)[0].log_e == 99.0
    assert store.thin() == 1440 - 144
    assert store.thin() == 0
    kept = store.points(TRIAL.digest, since=begin)
    assert len(kept) <= MOMENTS
    assert kept == sorted(kept, key=lambda one: one.at)
    assert kept[-1].log_e == 99.0
    old = [one.at for one in kept if one.at < now[0] - DAY_S]
    assert old[0] < begin + 3600.0 and {at // 60 % 10 for at in old} == {9.0}  # the last of each ten minutes
    now[0] += 200 * DAY_S
    store.thin()
    assert store.points(TRIAL.digest) == []
    store.close()


def test_charts_have_so_many_moments_and_all_processes_of_each(store):
    fence = store.claim("fleet", "one")
    points = [point(60.0 * at, signal=signal) for at in range(1, 1202) for signal in ("retry", "empty")]
    random.Random(3).shuffle(points)
    store.save("fleet", fence, Step(of(1), points=points))
    found = store.points(TRIAL.digest)
    moments = sorted({one.at for one in found})
    assert MOMENTS / 2 < len(moments) <= MOMENTS
    assert moments[-1] == 60.0 * 1201
    assert len(found) == 2 * len(moments)
    one = store.points(TRIAL.digest, signal="retry", since=60.0 * 1000)
    assert {point.signal for point in one} == {"retry"} and len(one) == 202


def test_how_far_it_is_behind_is_told_by_what_waits(url):
    now = [1000.0]
    reader = Reader(connect(url))
    store = Store(connect(url), reader, clock=lambda: now[0])
    store.create()
    journal = Journal(connect(url))
    journal.start()
    assert store.behind_s("fleet") is None
    journal.put(exchange(1, target="fleet", at=990.0))
    journal.close()
    assert store.behind_s("fleet") == 10.0
    fence = store.claim("fleet", "one")
    store.save("fleet", fence, Step(of(reader.last()), verdict()))
    assert store.behind_s("fleet") == 0.0
    now[0] = 0.0  # a clock that was set back
    store.save("fleet", fence, Step(of(0)))
    assert store.behind_s("fleet") == 0.0
    reader.close()
    store.close()


def test_tables_of_another_release_are_left_alone_and_what_is_broken_is_named(store, url):
    fence = store.claim("fleet", "one")
    store.save("fleet", fence, Step(of(7, STATE), verdict()))
    with store.engine.begin() as link:
        link.execute(sa.update(STATES).values(state="{", verdict="{"))
    found = store.load("fleet")
    assert found is not None and (found.number, found.state) == (7, None) and "not a record" in found.broken
    with pytest.raises(RecordError, match="watch, verdict on fleet: not a record"):
        store.verdict("fleet")
    with store.engine.begin() as link:
        link.execute(sa.update(STATES).values(verdict=verdict().model_dump_json()[:-1] + ', "older": 1}'))
        link.execute(sa.update(ABOUT).values(value=9))
    assert store.verdict("fleet") == verdict()
    with pytest.raises(QuantgateError, match="watch: its tables are of layout 9, expected 1"):
        store.create()


def test_a_database_that_is_not_there_is_one_sentence():
    store = Store(connect("postgresql://nobody@127.0.0.1:1/x", where="watch"))
    with pytest.raises(QuantgateError, match=r"^watch: .*; check the address and that the database is up$"):
        store.create()
