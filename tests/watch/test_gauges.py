"""What Prometheus reads of the watch; and that alerts and dashboard ask for nothing that is not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.gateways import asked, call, chat, gateway_of, kept, until
from tests.watch.standing import NOW, alarm, finding, leave, verdict

from quantgate.errors import QuantgateError
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Journal, Reader
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.watch import Tally
from quantgate.watch.gauges import Gauges, Standing, alerts, grafana
from quantgate.watch.store import Store

NAME = re.compile(r"\bquantgate_[a-z0-9_]+")


@pytest.fixture
def store(tmp_path):
    url = f"sqlite:///{tmp_path / 'watch.db'}"
    journal = Journal(connect(url))
    journal.start()
    journal.close()
    reader = Reader(connect(url))
    made = Store(connect(url), reader)
    made.create()
    yield made
    reader.close()
    made.close()


def scraped(standing: Standing, **counts: float) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Gauges(standing, {name: ("a count", partial(float, value)) for name, value in counts.items()}))
    return samples(generate_latest(registry).decode())


def samples(page: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(page):
        for one in family.samples:
            labels = ",".join(value for name, value in sorted(one.labels.items()) if name != "target")
            found[f"{one.name.removeprefix('quantgate_watch_')}[{labels}]"] = one.value
    return found


def test_before_the_first_reading_nothing_is_up(store):
    assert scraped(Standing("laptop", store)) == {
        "up[]": 0.0,
        "alarms_total[rollback]": 0.0,
        "alarms_total[hold]": 0.0,
        "alarms_total[promote]": 0.0,
    }


def test_every_finding_is_told_with_its_sides(store):
    found = verdict(
        "hold", findings=(finding(log_e=4.5, high=5.0), finding("refusal", direction="less", ratio=None, low=None))
    )
    leave(store, found)
    standing = Standing("laptop", store)
    standing.read()
    told = scraped(standing, marks_dropped=3)
    assert told["up[]"] == 1.0
    assert (told["action[hold]"], told["action[rollback]"]) == (1.0, 0.0)
    assert told["trial[BF16,W3A16]"] == 1.0
    assert told["log_e[more,validation_failure]"] == 4.5
    assert told["log_threshold[more,validation_failure]"] == 9.21
    assert [told[f"ratio{end}[more,validation_failure]"] for end in ("", "_low", "_high")] == [3.9, 2.6, 5.0]
    assert "ratio[less,refusal]" not in told, "nothing is known of it"
    assert told["units[more,trial,validation_failure]"] == 1204
    assert told["bad[more,control,validation_failure]"] == 96
    assert told["marks_dropped_total[]"] == 3.0
    assert told["share[]"] == 0.1


def test_alarms_count_from_the_start_of_the_process_and_each_once(store):
    leave(store, verdict(), alarm(verdict(), "old"))
    standing = Standing("laptop", store)
    standing.read()
    assert scraped(standing)["alarms_total[rollback]"] == 0.0
    leave(store, verdict(), alarm(verdict(), "new", done="pending"), alarm(verdict("promote"), "up"))
    standing.read()
    leave(store, verdict(), alarm(verdict(), "new", done="moved", decided_at=NOW + 5))
    standing.read()
    told = scraped(standing)
    assert (told["alarms_total[rollback]"], told["alarms_total[promote]"]) == (1.0, 1.0)
    assert told["last_alarm_timestamp_seconds[rollback,moved]"] == NOW + 5


class Away:
    def __init__(self, store):
        self._store, self.away = store, False

    def __getattr__(self, name):
        if self.away:
            raise QuantgateError("watch: no answer")
        return getattr(self._store, name)


def test_figures_of_a_database_that_is_away_are_not_told_as_if_they_were_new(store):
    leave(store, verdict(), alarm(verdict()))
    where = Away(store)
    standing = Standing("laptop", where)
    standing.read()
    where.away = True
    standing.read()
    told = scraped(standing)
    assert told["up[]"] == 0.0
    assert not any(name.startswith(("log_e", "action", "units")) for name in told)
    assert standing.trouble == "the evidence cannot be read (watch: no answer)"
    where.away = False
    standing.read()
    assert scraped(standing)["up[]"] == 1.0 and not standing.trouble
    assert scraped(standing)["alarms_total[rollback]"] == 0.0, "what was there before is not new again"


def test_the_thread_reads_by_itself_and_ends(store):
    standing = Standing("laptop", store, every_s=0.01)
    standing.start()
    until(lambda: standing.now.up)
    leave(store, verdict())
    until(lambda: standing.now.verdict is not None)
    standing.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """A scrape of a gateway with a watch that has seen everything, and of what ``serve.open`` counts beside."""
    store = Store(connect(f"sqlite:///{tmp_path_factory.mktemp('gauges') / 'watch.db'}"))
    store.create()
    leave(store, verdict("rollback", findings=(finding(high=5.0),)), alarm(verdict()))
    standing = Standing("laptop", _Told(store))
    standing.read()
    with ScriptedUpstream() as variant, Running(gateway := gateway_of(variant)) as running:
        gateway.metrics.registry.register(Gauges(standing, {"marks_dropped": ("Unread", lambda: 0.0)}))
        chat(running, asked())
        chat(running, asked(stream=True))
        variant.next(Script("status"))
        chat(running, asked())
        until(lambda: len(kept(gateway)) == 3)
        page = call(running, "/metrics").raw.decode()
    store.close()
    return page


class _Told:
    """Evidence that is a little behind."""

    def __init__(self, store):
        self.verdict, self.alarms, self.alarm, self.points = store.verdict, store.alarms, store.alarm, store.points

    def behind_s(self, target):
        return 0.5


OPENED = {  # of ``serve.open``, which tests/watch/test_attached.py scrapes
    "quantgate_exchanges_dropped",
    "quantgate_revision",
    "quantgate_canary_share",
    "quantgate_warnings",
}


def expressions(told) -> list[str]:
    """Every query in a dashboard or in rules."""
    if isinstance(told, dict):
        own = [told[key] for key in ("expr", "definition") if isinstance(told.get(key), str)]
        return own + [one for value in told.values() for one in expressions(value)]
    return [one for value in told for one in expressions(value)] if isinstance(told, list) else []


@pytest.mark.parametrize("printed", [alerts, grafana])
def test_every_figure_that_is_asked_for_is_in_a_scrape(page, printed):
    asked_for = {name for one in expressions(yaml.safe_load(printed())) for name in NAME.findall(one)}
    told = {one.name for family in text_string_to_metric_families(page) for one in family.samples}
    assert len(asked_for) > 8
    assert asked_for - told - OPENED == set()


def test_labels_that_are_asked_for_are_in_a_scrape(page):
    known = {
        (one.name, label)
        for family in text_string_to_metric_families(page)
        for one in family.samples
        for label in one.labels
    }
    for query in expressions(json.loads(grafana())) + expressions(yaml.safe_load(alerts())):
        for name, inside in re.findall(r"(quantgate_watch_[a-z_]+)\{([^}]*)\}", query):
            for label in re.findall(r"([a-z_]+)\s*=~?", inside):
                assert (name, label) in known, query


def test_rules_are_as_prometheus_reads_them(tmp_path):
    told = yaml.safe_load(alerts())
    rules = [rule for group in told["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 6
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    file = tmp_path / "alerts.yml"
    file.write_text(alerts())
    found = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_dashboard_is_one_that_grafana_imports():
    told = json.loads(grafana())
    assert told["uid"] == "quantgate" and told["schemaVersion"] >= 36
    panels = [one for one in told["panels"] if one["type"] != "row"]
    assert len({one["id"] for one in told["panels"]}) == len(told["panels"])
    for one in panels:
        assert one["targets"] and all(target["expr"] for target in one["targets"])
        assert one["gridPos"]["x"] + one["gridPos"]["w"] <= 24
    assert not re.search(r"https?://", grafana()), "it works offline"


def test_figures_of_many_units_stay_exact(store):
    many = finding(trial=Tally(units=123_456_789, bad=1), control=Tally(units=2**53, bad=0))
    leave(store, verdict("hold", findings=(many,)))
    standing = Standing("laptop", store)
    standing.read()
    told = scraped(standing)
    assert told["units[more,trial,validation_failure]"] == 123_456_789
    assert told["units[more,control,validation_failure]"] == 2**53
