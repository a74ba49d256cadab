"""Killed at any moment, evidence is the same bit for bit, and what was decided is done once."""

from __future__ import annotations

import json
import os
import random
import signal
import time

from tests.watch.houses import end, evidence, house, url
from tests.watch.made import alarm, verdict
from tests.watch.traffic import CONFIG, canary, exchanges, until, write

from quantgate.release.lifecycle import promote, rollback
from quantgate.serve.live import RegistryLink
from quantgate.watch.acting import Actor
from quantgate.watch.alarming import Alarms
from quantgate.watch.troubles import Troubles
from quantgate.watch.webhooks import hooks_of
from quantgate.watch_config import WebhookConfig

__all__ = ["house", "url"]
KILLS = 5


def suicide(*_: object) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def test_killed_again_and_again_it_counts_what_a_watch_counts_that_was_never_disturbed(house):
    draw = random.Random(11)
    live, places = house.live, set()
    for at in range(KILLS):
        write(house.url, exchanges(live, 700, bad=0.03, first=700 * at, seed=at))
        child = house.fork()
        house.led_by(child)
        time.sleep(draw.uniform(0.0, 1.2))  # any moment: of reading, of a save or between two
        end(child)
        kept = house.store.load("fleet")
        places.add(kept.number)
    house.watch()
    until(house.counted())
    kept = house.store.load("fleet")
    assert len(places) > 1  # it was killed at several places
    assert json.dumps(evidence(kept.state)) == json.dumps(house.straight())
    assert house.live.revision == 2


def test_killed_between_its_alarm_and_the_move_the_next_one_moves(house):
    write(house.url, exchanges(house.live, 600, bad=0.5))
    child = house.fork(capacity=suicide)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    pending = house.alarm("pending")
    assert house.live.canary is not None
    house.watch()
    moved = house.alarm("moved")
    assert (moved.id, moved.told, moved.verdict) == (pending.id, "revision 3", pending.verdict)
    assert (house.live.canary, house.live.revision, house.told) == (None, 3, [3])


def test_killed_between_the_move_and_its_settlement_the_next_one_moves_nothing(house):
    write(house.url, exchanges(house.live, 600, bad=0.5))
    child = house.fork(moved=suicide)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert house.store.alarms("fleet")[0].done == "pending"
    assert house.live.revision == 3
    house.watch()
    assert house.alarm("moved").told == "revision 3"
    until(house.counted())
    assert (house.live.revision, house.told, len(house.store.alarms("fleet"))) == (3, [3], 1)


def test_killed_after_a_promotion_the_next_one_promotes_no_further(house):
    write(house.url, exchanges(house.live, 3000, bad=0.1, base=0.5))
    config = CONFIG.model_copy(update={"ramp": True})
    child = house.fork(config, moved=suicide)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    house.watch(config)
    assert house.alarm("moved").told == "revision 3"
    until(house.counted())
    assert (house.live.revision, len(house.store.alarms("fleet"))) == (3, 1)


def test_an_alarm_that_is_found_pending_is_stale_where_a_person_was_faster(house):
    """Also where the same bytes are a canary again by now: the person knew better, and evidence begins anew."""
    write(house.url, exchanges(house.live, 600, bad=0.5))
    child = house.fork(capacity=suicide)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    rollback(house.registry, "fleet", why="by hand")
    promote(house.registry, "fleet", "A", canary=0.5)
    house.watch()
    assert house.alarm("stale").told == "A was taken away by revision 3 of ada"
    until(house.counted())
    assert house.live.canary is not None and house.told == []


def test_settling_twice_is_settling_once(tmp_path):
    """Two who both believe to lead, and both found the same alarm."""
    registry = canary(f"sqlite:///{tmp_path / 'registry.db'}")
    link = RegistryLink(f"sqlite:///{tmp_path / 'registry.db'}", "gateway")
    live = registry.live("fleet")
    assert live.canary is not None
    one = alarm(revision=live.revision)
    trial = one.verdict.trial.model_copy(update={"artifact": live.canary.artifact})
    one = one.model_copy(update={"verdict": one.verdict.model_copy(update={"trial": trial})})
    told = [Actor("fleet", CONFIG, link).settle(one) for _ in range(2)]
    assert [(each.done, each.told) for each in told] == [("moved", "revision 3")] * 2
    assert registry.live("fleet").revision == 3
    link.close()
    registry.close()


def test_a_promotion_that_waits_is_not_made_when_the_evidence_turned_meanwhile(tmp_path):
    """The registry was away, and came back after more was known; a long wait is told to webhooks once."""
    file = tmp_path / "registry.db"
    link, troubles = RegistryLink(f"sqlite:///{file}", "gateway"), Troubles("fleet")
    config = CONFIG.model_copy(update={"ramp": True})
    hooks = hooks_of([WebhookConfig(url="http://127.0.0.1:9/")], {})
    alarms = Alarms(Actor("fleet", config, link), hooks, nothing_moved, troubles, again_s=0.0, long_s=0.0)
    one, newest = alarm("promote", next_share=0.25), verdict("promote", next_share=0.25)
    alarms.take(one)
    alarms.settle(newest)
    assert "promote of A waits: registry" in troubles.sentences()[0]
    (rows, posts), again = alarms.rows(0.0), alarms.rows(0.0)
    assert [each.done for each in rows] == ["pending"] and len(posts) == 1
    assert again[1][0].id == posts[0].id  # told again, it is known by its name
    alarms.written(rows)
    assert not alarms.news
    canary(f"sqlite:///{file}").close()
    alarms.settle(verdict("hold"))
    ((done,), _) = alarms.rows(0.0)
    assert (done.done, done.told) == ("stale", "while it waited, the evidence changed")
    assert troubles.sentences() == []
    link.close()


def nothing_moved() -> None:
    raise AssertionError("nothing was moved")
