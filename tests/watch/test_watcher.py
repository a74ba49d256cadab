"""A canary that is worse goes back by itself, once, with its reason in the registry; what is away is waited for."""

from __future__ import annotations

import math
import sqlite3
from contextlib import ExitStack

import pytest
from tests.release.given import variant_of
from tests.watch.houses import House, evidence, house, url
from tests.watch.traffic import BROKE, CONFIG, exchanges, until, write

from quantgate.errors import UsageError
from quantgate.release.lifecycle import hold, promote, rollback
from quantgate.release.store import Registry
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.serve.live import RegistryLink
from quantgate.watch.store import Store
from quantgate.watch.watcher import Watcher, _gist
from quantgate.watch_config import WatchConfig

__all__ = ["house", "url"]


def test_a_canary_that_is_worse_goes_back_once_and_its_move_says_why(house):
    watcher = house.watch()
    write(house.url, exchanges(house.live, 600, bad=0.5))
    alarm = house.alarm()
    live = house.live
    assert (live.canary, live.revision, live.stable.name) == (None, 3, "BF16")
    assert (alarm.told, alarm.verdict.action, alarm.verdict.signal) == ("revision 3", "rollback", "broke")
    move = house.registry.history("fleet", limit=1)[0]
    assert (move.what, move.who, move.why) == ("rollback", "watch", alarm.verdict.because)
    assert move.details["alarm"] == alarm.id
    first = move.details["findings"][0]
    assert first["log_e"] >= first["log_threshold"] and first["trial"][0] > 0 and first["examples"]
    assert house.told == [3] and watcher.moves == 1
    assert until(lambda: house.store.verdict("fleet")).number > 0
    write(house.url, exchanges(house.live.model_copy(update={"canary": variant_of("A")}), 50, bad=1.0, first=600))
    until(lambda: house.store.behind_s("fleet") == 0.0)
    assert len(house.store.alarms("fleet")) == 1 and house.live.revision == 3
    assert watcher.warnings() == []


def test_a_canary_that_is_as_good_gets_more_and_then_everything(house):
    config = CONFIG.model_copy(update={"ramp": True, "holdback": 0.05})
    house.watch(config)
    write(house.url, exchanges(house.live, 3000, bad=0.1, base=0.5))
    house.alarm()
    live = house.live
    assert (live.canary, live.stable.name, live.holdback) == (None, "A", 0.05)
    move = house.registry.history("fleet", limit=1)[0]
    assert (move.what, move.who) == ("promote", "watch") and move.decision


def test_a_ramp_that_is_off_tells_what_a_person_would_type(house):
    house.watch()
    write(house.url, exchanges(house.live, 3000, bad=0.1, base=0.5))
    alarm = house.alarm("refused")
    assert alarm.told == "watch.ramp is false, so a person does it: quantgate promote fleet A"
    assert house.live.revision == 2


def test_a_canary_that_is_the_same_stays(house):
    house.watch()
    write(house.url, exchanges(house.live, 2000, bad=0.02))
    until(lambda: house.store.behind_s("fleet") == 0.0)
    assert until(lambda: house.store.verdict("fleet")).action == "hold"
    assert (house.live.revision, house.store.alarms("fleet")) == (2, [])
    point = until(lambda: house.store.points(house.store.verdict("fleet").trial.digest))[-1]
    assert point.signal == "broke" and point.log_e < point.log_threshold


def test_where_rollbacks_are_a_persons_or_nothing_moves_it_only_tells(house):
    write(house.url, exchanges(house.live, 600, bad=0.5))
    house.watch(CONFIG.model_copy(update={"rollback": False}))
    assert house.alarm("refused").told.startswith("watch.rollback is false, so a person does it: quantgate rollback")
    assert house.live.revision == 2


def test_without_a_registry_it_only_tells(house):
    write(house.url, exchanges(house.live, 600, bad=0.5))
    house.watch(registry=False, live=lambda: house.live)
    assert house.alarm("refused").told == "what is live stands in serve.yaml, so only a person moves it"
    assert house.live.revision == 2


def test_without_a_holdback_the_rates_that_serve_yaml_states_are_what_counts(house):
    some = exchanges(house.live, 600, bad=0.3, base=0.3)
    promote(house.registry, "fleet", "A", holdback=0.0)
    alone = {"side": "", "odds": 0.0, "against": "", "draw": "", "cohort": "stable", "variant": "A"}
    own = house.live.stable.artifact
    alone |= {"artifact": own, "revision": house.live.revision}
    write(house.url, [one.model_copy(update=alone) for one in some])
    house.watch(CONFIG.model_copy(update={"bounds": {"broke": 0.02}}))
    found = house.alarm()
    assert found.verdict.action == "rollback"
    assert "where watch.bounds allows 2 %" in found.verdict.because
    assert house.live.stable.is_baseline


def test_a_rollback_waits_until_what_it_goes_back_to_is_up_and_says_so(house):
    up = set[str]()
    watcher = house.watch(capacity=lambda one: "" if one.name in up else "no upstream for it here")
    write(house.url, exchanges(house.live, 600, bad=0.5))
    until(lambda: any("BF16, to go back to, is not up: no upstream for it here" in one for one in watcher.warnings()))
    assert house.live.canary is not None and house.store.pending("fleet")
    up.add("BF16")
    assert house.alarm().told == "revision 3"
    assert house.live.canary is None and house.registry.history("fleet", limit=1)[0].capacity == "up"
    until(lambda: watcher.warnings() == [])


def test_others_read_the_newest_verdict_soon_after_the_last_exchange(house):
    house.watch()
    for part in range(4):
        write(house.url, exchanges(house.live, 50, bad=0.02, base=0.02, first=50 * part))
        last = house.reader.last()

        def newest(last: int = last) -> bool:
            verdict = house.store.verdict("fleet")
            return verdict is not None and verdict.number == last

        until(newest, limit_s=10.0)  # without news, a place alone is saved every 30 s


def test_a_hold_that_says_the_same_of_other_figures_is_no_news(house):
    house.watch()
    write(house.url, exchanges(house.live, 100, bad=0.02))
    verdict = until(lambda: house.store.verdict("fleet"))
    late, later = (verdict.model_copy(update={"because": f"no exchange for {s} s"}) for s in ("1,200", "1,201.5"))
    assert _gist(late) == _gist(later) != _gist(verdict)


def test_a_held_target_is_not_moved_and_the_alarm_says_by_whom(house):
    hold(house.registry, "fleet", why="fair week")
    write(house.url, exchanges(house.live, 600, bad=0.5))
    house.watch()
    assert "it is held by ada since" in house.alarm("refused").told
    assert house.live.canary is not None
    hold(house.registry, "fleet", off=True)
    write(house.url, exchanges(house.live, 20, bad=0.5, first=600))  # the first of the release that may be moved
    assert house.alarm("moved").verdict.revision == 4
    assert house.live.canary is None


def test_a_verdict_waits_for_a_registry_that_is_away(house, tmp_path):
    """And a trial that a person took away meanwhile makes it stale."""
    file = tmp_path / "registry.db"
    away = tmp_path / "away.db"
    watcher = house.watch()
    until(lambda: watcher.leads)
    write(house.url, exchanges(house.live, 20, bad=0.02, first=9000))
    until(lambda: house.store.verdict("fleet"))
    house.registry.close()
    file.rename(away)
    write(house.url, exchanges(canary_live(away), 600, bad=0.5))
    pending = house.alarm("pending")
    until(lambda: any("rollback of A waits" in one for one in watcher.warnings()))
    assert pending.verdict.action == "rollback"
    away.rename(file)
    assert house.alarm("moved").id == pending.id
    until(lambda: watcher.warnings() == [])
    assert house.live.canary is None


def canary_live(path):
    registry = Registry.open(f"sqlite:///{path}")
    try:
        return registry.live("fleet")
    finally:
        registry.close()


def test_a_verdict_on_one_that_a_person_replaced_meanwhile_is_stale(house, tmp_path):
    watcher = house.watch()
    until(lambda: watcher.leads)
    before = house.live
    write(house.url, exchanges(before, 20, bad=0.02, first=9000))
    until(lambda: house.store.verdict("fleet"))
    file, away = tmp_path / "registry.db", tmp_path / "away.db"
    house.registry.close()
    file.rename(away)
    write(house.url, exchanges(before, 600, bad=0.5))
    house.alarm("pending")
    moved = Registry.open(f"sqlite:///{away}", "ada")
    rollback(moved, "fleet", why="by hand")
    promote(moved, "fleet", "B", canary=0.5)
    moved.close()
    away.rename(file)
    assert house.alarm("stale").told == "A was taken away by revision 3 of ada"
    assert house.live.canary is not None and house.live.canary.name == "B"
    assert house.told == []


def test_a_database_that_is_away_is_waited_for_and_no_verdict_is_made_up(postgres, tmp_path):
    with ExitStack() as stack:
        house = House(postgres.url(), tmp_path, stack)
        watcher = house.watch()
        write(house.url, exchanges(house.live, 100, bad=0.02))
        until(lambda: house.store.verdict("fleet"))
        postgres.kill()
        try:
            until(lambda: any("stands still" in one for one in watcher.warnings()))
        finally:
            postgres.start()
        write(house.url, exchanges(house.live, 600, bad=0.5, first=100))
        house.alarm()
        until(lambda: watcher.warnings() == [])
        assert house.live.canary is None
        until(house.counted())
        kept = house.store.load("fleet")
        assert kept is not None and kept.state is not None
        assert evidence(kept.state) == house.straight()


def test_a_rollback_does_not_wait_for_a_store_that_cannot_be_written(tmp_path):
    """The evidence lies apart here, in a file that takes no more: what moved is written down when it does again."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with ExitStack() as stack:
        house = House(url, tmp_path, stack)
        engine = connect(f"sqlite:///{tmp_path / 'watch.db'}")
        store, reader, link = Store(engine), Reader(connect(url)), RegistryLink(house.registry_url, "gateway")
        store.create()
        watcher = Watcher("fleet", reader, store, link, CONFIG, signals=[BROKE])
        for part in (store, reader, link, watcher):
            stack.callback(part.close)
        watcher.start()
        until(lambda: watcher.leads)
        full = sqlite3.connect(tmp_path / "watch.db")
        full.execute("CREATE TRIGGER full BEFORE UPDATE ON watch_state BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        write(url, exchanges(house.live, 600, bad=0.5))
        until(lambda: house.live.canary is None)
        assert any("disk is full" in one for one in until(watcher.warnings))
        assert store.alarms("fleet") == []
        full.execute("DROP TRIGGER full")
        full.close()
        assert until(lambda: store.alarms("fleet"))[0].done == "moved"
        until(lambda: watcher.warnings() == [])


def test_a_promotion_waits_for_a_store_that_cannot_be_written(tmp_path):
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with ExitStack() as stack:
        house = House(url, tmp_path, stack)
        watcher = house.watch(CONFIG.model_copy(update={"ramp": True}))
        until(lambda: watcher.leads)
        full = sqlite3.connect(url.removeprefix("sqlite:///"))
        full.execute("CREATE TRIGGER full BEFORE UPDATE ON watch_state BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        write(url, exchanges(house.live, 3000, bad=0.1, base=0.5))
        until(lambda: watcher.standing and watcher.standing.action == "promote")
        assert any("disk is full" in one for one in until(watcher.warnings))
        assert house.live.revision == 2
        full.execute("DROP TRIGGER full")
        full.close()
        house.alarm()
        assert house.live.stable.name == "A"


def test_a_journal_that_was_replaced_begins_anew_and_a_broken_row_holds_up_no_other(house):
    write(house.url, exchanges(house.live, 300, bad=0.02))
    first = house.watch()
    until(lambda: house.store.behind_s("fleet") == 0.0 and house.store.verdict("fleet"))
    first.close()
    engine = connect(house.url)
    with engine.begin() as link:
        link.exec_driver_sql("DROP TABLE exchanges")
        link.exec_driver_sql("DROP TABLE exchanges_about")
    write(house.url, exchanges(house.live, 200, bad=0.02, seed=2))
    with engine.begin() as link:
        link.exec_driver_sql("UPDATE exchanges SET record = '{' WHERE id = 5")
    engine.dispose()
    second = house.watch()

    def counted() -> bool:
        found = house.store.verdict("fleet").findings
        return bool(found) and found[0].trial.units + found[0].control.units == 199

    until(counted)
    told = second.warnings()
    assert any("another than before" in one for one in told) and any("exchange 5: not a record" in one for one in told)
    assert house.live.revision == 2


def test_evidence_that_cannot_be_read_begins_anew_where_it_ended(house):
    write(house.url, exchanges(house.live, 300, bad=0.02))
    first = house.watch()
    until(lambda: house.store.behind_s("fleet") == 0.0 and house.store.verdict("fleet"))
    first.close()
    engine = connect(house.url)
    with engine.begin() as link:
        link.exec_driver_sql("""UPDATE watch_state SET state = '{"version": 99}'""")
    engine.dispose()
    second = house.watch()
    assert any("cannot be read" in one and "begins anew" in one for one in until(second.warnings))
    write(house.url, exchanges(house.live, 40, bad=0.02, first=300))

    def counted() -> bool:
        found = house.store.verdict("fleet").findings
        return bool(found) and found[0].trial.units + found[0].control.units == 40

    until(counted)


def test_what_a_clock_that_jumps_says_moves_nothing(house):
    now = [2e9]
    house.watch(clock=lambda: now[0])
    for jump in (0.0, 1e8, -2e8, 1e3):
        now[0] += jump
        write(house.url, exchanges(house.live, 200, bad=0.02, first=round(abs(jump)), seed=round(abs(jump))))
        until(lambda: house.store.behind_s("fleet") == 0.0)
    verdict = until(lambda: house.store.verdict("fleet"))
    assert verdict.action == "hold" and all(math.isfinite(one.log_e) for one in verdict.findings)
    assert house.live.revision == 2


def test_a_hold_is_told_to_whoever_asks_for_holds(house):
    config = WatchConfig.model_validate(
        {"webhooks": [{"url": "http://127.0.0.1:9/", "alarms": ["hold"], "timeout": "1s"}]}
    )
    house.watch(config)
    write(house.url, exchanges(house.live, 20, bad=0.02))
    alarm = house.alarm("refused")
    assert (alarm.verdict.action, alarm.told) == ("hold", "a hold moves nothing")


def test_a_webhook_that_cannot_be_signed_is_told_at_once(house):
    for hook, told in (
        ({"url": "https://hooks.example/x", "secret_env": "NOBODY"}, "the environment has no 'NOBODY'"),
        ({"url": "https:///x"}, "not an address"),
    ):
        with pytest.raises(UsageError, match=told):
            Watcher("fleet", Reader(connect(house.url)), house.store, None, WatchConfig(webhooks=(hook,)))  # type: ignore[arg-type]


def test_two_targets_of_one_journal_are_watched_apart(house):
    write(house.url, exchanges(house.live.model_copy(update={"target": "laptop"}), 600, bad=0.5))
    write(house.url, exchanges(house.live, 100, bad=0.02, first=600))
    house.watch()
    until(lambda: house.store.behind_s("fleet") == 0.0)
    found = until(lambda: house.store.verdict("fleet")).findings[0]
    assert found.trial.units + found.control.units == 100
    assert house.live.revision == 2
