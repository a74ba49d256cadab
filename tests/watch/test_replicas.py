"""Of several processes one leads; when it dies, hangs or is cut off another does, and nothing counts twice."""

from __future__ import annotations

import json
import os
import signal
import time

import sqlalchemy as sa
from tests.watch.houses import end, evidence, house, url
from tests.watch.traffic import exchanges, until, write

from quantgate.serve._ledger_sql import connect
from quantgate.watch.leading import FileLock, ServerLock, lead_of
from quantgate.watch.watcher import Watcher

__all__ = ["house", "url"]


def test_one_leads_and_when_it_is_killed_another_does_soon(house):
    children = {house.fork() for _ in range(3)}
    write(house.url, exchanges(house.live, 300, bad=0.03))
    until(house.counted())
    for _ in range(2):
        leader = house.leader()
        assert leader in children
        end(leader)
        children.remove(leader)
        house.led_by_another(leader)
    write(house.url, exchanges(house.live, 300, bad=0.03, first=300))
    until(house.counted())
    assert json.dumps(evidence(house.store.load("fleet").state)) == json.dumps(house.straight())
    write(house.url, exchanges(house.live, 600, bad=0.6, first=600))
    assert house.alarm().told == "revision 3"
    assert len(house.store.alarms("fleet")) == 1


def test_one_that_stood_still_and_wakes_up_writes_nothing(house):
    first = house.fork(hangs_s=1.5)
    write(house.url, exchanges(house.live, 300, bad=0.03))
    until(house.counted())
    os.kill(first, signal.SIGSTOP)
    try:
        second = house.fork(hangs_s=1.5)
        house.led_by(second)
        write(house.url, exchanges(house.live, 300, bad=0.03, first=300))
        until(house.counted())
    finally:
        os.kill(first, signal.SIGCONT)
    write(house.url, exchanges(house.live, 300, bad=0.03, first=600))
    until(house.counted())
    assert house.leader() == second
    assert json.dumps(evidence(house.store.load("fleet").state)) == json.dumps(house.straight())
    end(second)
    house.led_by(first)  # it followed, and is there when it is needed
    write(house.url, exchanges(house.live, 600, bad=0.6, first=900))
    house.alarm()
    until(house.counted())
    assert json.dumps(evidence(house.store.load("fleet").state)) == json.dumps(house.straight())


def test_those_that_follow_read_what_the_leader_saved(house):
    leader = house.watch()
    until(lambda: leader.leads)
    follower: Watcher = house.watch()
    write(house.url, exchanges(house.live, 600, bad=0.5))
    house.alarm()
    until(house.counted())
    assert (leader.leads, follower.leads) == (True, False)
    assert until(lambda: follower.standing) is not None
    assert (leader.moves, follower.moves, follower.warnings()) == (1, 0, [])
    leader.close()
    until(lambda: follower.leads)


def test_a_lock_is_one_processs_and_each_targets(url):
    one, two, other = connect(url), connect(url), connect(url)
    first, second, apart = lead_of(one, "fleet"), lead_of(two, "fleet"), lead_of(other, "laptop")
    assert first.take() and first.take() and first.held()
    assert apart.take()
    assert not second.take() and not second.held()
    first.give()
    first.give()
    assert not first.held()
    assert second.take() and not first.take()
    for lock, engine in ((first, one), (second, two), (apart, other)):
        lock.give()
        engine.dispose()


def test_a_lead_that_is_given_is_free_before_its_connection_ends(postgres):
    """A server notices the end of a connection a moment later, when the next one has perhaps asked already."""
    one = connect(postgres.url())
    two = connect(str(one.url.render_as_string(hide_password=False)))
    first, second = ServerLock(one, "fleet"), ServerLock(two, "fleet")
    assert first.take() and not second.take()
    taken = []
    sa.event.listen(one, "close_detached", lambda _: taken.append(second.take()))
    first.give()
    assert taken == [True]
    second.give()
    one.dispose()
    two.dispose()


def test_a_file_that_its_leader_does_not_touch_gets_a_new_one_in_its_place(tmp_path):
    path = tmp_path / "lock"
    first, second, third = (FileLock(path, hangs_s=0.3) for _ in range(3))
    assert first.take()
    end_s = time.monotonic() + 1.0
    while time.monotonic() < end_s:  # as long as it says that it is alive, it leads
        assert first.held() and not second.take()
        time.sleep(0.02)
    until(second.take)
    assert not first.held()
    assert not first.take() and not third.take() and second.held()
    path.unlink()
    assert not second.held()
    assert third.take()
    third.give()


def test_a_connection_that_is_lost_is_a_lead_that_is_lost(postgres):
    engine = connect(postgres.url())
    other = connect(str(engine.url.render_as_string(hide_password=False)))
    first, second = ServerLock(engine, "fleet"), ServerLock(other, "fleet")
    assert first.take() and not second.take()
    with other.begin() as link:
        ours = sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND pid <> pg_backend_pid() AND objid = :low"
        )
        low = first._key(first._link) & 0xFFFFFFFF  # type: ignore[arg-type]
        assert link.execute(ours, {"low": low}).scalar()
    until(second.take)
    assert not first.held() and second.held()
    for lock in (first, second):
        lock.give()
    engine.dispose()
    other.dispose()


def test_a_lock_of_one_that_says_nothing_is_let_go(postgres):
    engine, other = connect(postgres.url()), None
    other = connect(str(engine.url.render_as_string(hide_password=False)))
    first, second = ServerLock(engine, "fleet", hangs_s=0.3), ServerLock(other, "fleet")
    assert first.take() and not second.take()
    until(second.take)
    assert not first.held()
    second.give()
    engine.dispose()
    other.dispose()
