"""What Argo Rollouts, Flagger and scripts are told, over a real store and a real gateway."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from tests.serve.gateways import gateway_of
from tests.serve.opened import Client
from tests.watch.standing import BASE, CANARY, NOW, STABLE, alarm, finding, leave, live, point, trial_of, verdict

from quantgate.errors import QuantgateError
from quantgate.serve import Caller, OverBudget
from quantgate.serve._ledger_sql import connect
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.watch.store import Store
from quantgate.watch.verdicts import Asked, Verdicts, answer, evidence

ASKED = Asked()


@pytest.fixture
def store(tmp_path):
    made = Store(connect(f"sqlite:///{tmp_path / 'watch.db'}"))
    made.create()
    yield made
    made.close()


def said(store, now=None, asked=ASKED, late_s=300.0):
    found = answer(store, "laptop", now, asked, late_s=late_s)
    return found.action, found.because


def test_nothing_on_trial_is_a_hold(store):
    assert said(store) == ("hold", "hold, because nothing was on trial on laptop yet")


@pytest.mark.parametrize("action", ["rollback", "hold", "promote"])
def test_the_verdict_on_what_is_on_trial_is_told_as_it_is(store, action):
    found = verdict(action)
    leave(store, found)
    assert said(store, live()) == (action, found.because)


def test_a_rollback_stands_while_nothing_has_moved_since(store):
    back = verdict()
    leave(store, verdict("hold", because="hold, because W3A16 is not live any more"), alarm(back))
    after = live(5, canary=None)
    assert said(store, after) == ("rollback", back.because)
    assert said(store, live(5, canary=None, stable=STABLE, holdback=0.05)) == ("rollback", back.because)
    assert said(store, live(6, canary=STABLE))[0] == "hold", "another canary is on trial"
    assert said(store, live(1, canary=STABLE))[0] == "hold", "a configuration has one revision for ever"


def test_a_rollback_that_was_refused_stands_and_one_that_came_too_late_does_not(store):
    leave(store, verdict("hold"), alarm(verdict(), done="refused", told="held by ann"))
    assert said(store, live())[0] == "rollback"
    leave(store, verdict("hold"), alarm(verdict(), done="stale"))
    assert said(store, live())[0] == "hold"


def test_a_named_variant_is_answered_for_by_its_own_verdict(store):
    back = verdict()
    leave(store, verdict("promote", variant=STABLE, number=900, revision=7), alarm(back))
    now = live(7, canary=STABLE)
    for name in ("W3A16", CANARY.artifact, "c" * 12):
        assert said(store, now, Asked(variant=name)) == ("rollback", back.because), "weeks later, too"
    assert said(store, now, Asked(variant="W8A8"))[0] == "promote"
    action, because = said(store, now, Asked(variant="W5"))
    assert (action, because) == ("hold", "hold, because nothing was counted of 'W5'; the newest verdict is of W8A8")
    again = live(8)
    assert said(store, again, Asked(variant="W3A16"))[0] == "hold", "it was released anew"


def test_an_old_promotion_passes_nobody(store):
    leave(store, verdict("promote"))
    assert said(store, live())[0] == "promote"
    assert said(store, live(6, canary=STABLE)) == ("hold", "hold, because nothing was counted of W8A8 yet")
    assert said(store, live(6, canary=None)) == ("hold", "hold, because nothing is on trial on laptop now")
    assert said(store, live(6, canary=None, stable=CANARY, holdback=0.1))[0] == "promote", "it is stable now"


class Behind:
    """Evidence that nobody goes on with."""

    def __init__(self, store, behind_s):
        self.verdict, self.alarms = store.verdict, store.alarms
        self._behind_s = behind_s

    def behind_s(self, target):
        return self._behind_s


def test_evidence_that_is_behind_promotes_nobody_and_still_rolls_back(store):
    leave(store, verdict("promote"))
    assert said(Behind(store, 299.0), live())[0] == "promote"
    assert said(Behind(store, 301.0), live()) == (
        "hold",
        "hold, because the evidence is 301 s behind the newest exchange",
    )
    leave(store, verdict())
    assert said(Behind(store, 1e6), live())[0] == "rollback"


class Gone:
    def verdict(self, target):
        raise QuantgateError("watch: no answer; check the address and that the database is up")


def test_a_database_that_is_away_is_a_hold():
    action, because = said(Gone(), live())
    assert action == "hold"
    assert because.startswith("hold, because the evidence cannot be read (watch: no answer")


def test_evidence_is_the_part_of_the_threshold_that_the_furthest_signal_has_come():
    assert evidence(None) == 0.0
    assert evidence(verdict("hold", findings=())) == 0.0
    two = (finding(log_e=4.0, log_threshold=8.0), finding("refusal", log_e=-3.0, log_threshold=8.0))
    assert evidence(verdict("hold", findings=two)) == 0.5
    assert evidence(verdict("hold", findings=(finding(log_e=1e300),))) == 1e6


class Keys:
    """Two keys; and too many wrong ones."""

    known = {
        "qg_w": Caller("kw", frozenset({"watch"})),
        "qg_u": Caller("ku"),
        "qg_a": Caller("ka", frozenset({"admin"})),
    }

    def find(self, secret):
        if secret == "qg_flood":
            raise OverBudget("too many requests with wrong keys; check the key and wait a second", retry_after_s=1.0)
        return self.known.get(secret)


@contextmanager
def serving(app):
    """A gateway with it beside."""
    with ScriptedUpstream() as upstream, Running(gateway_of(upstream, apps={"watch": app})) as running:
        yield Client(running.port)


@pytest.fixture
def asked(store):
    """Clients of an application that is open, and of one with keys."""
    closed = Verdicts("laptop", store, live, keys=Keys())
    with serving(Verdicts("laptop", store, live)) as one, serving(closed) as other:
        yield one, other


def test_argo_reads_json_that_is_always_200(store, asked):
    client, _ = asked
    empty = client("GET", "/watch/verdict")
    assert (empty.status, empty.json["action"], empty.json["pass"], empty.json["evidence"]) == (200, "hold", True, 0.0)
    leave(store, verdict())
    for method in ("GET", "POST"):
        found = client(method, "/watch/verdict", None if method == "GET" else {})
        assert found.status == 200
        assert found.headers["content-type"] == "application/json"
        told = found.json
        assert (told["action"], told["pass"], told["score"], told["variant"]) == ("rollback", False, 0.0, "W3A16")
        assert told["evidence"] == pytest.approx(13.14 / 9.21)
        assert [one["signal"] for one in told["signals"]] == ["validation_failure", "refusal"]
        assert told["signals"][0]["trial"] == {"units": 1204, "bad": 41, "total": 0.0}
    leave(store, verdict("hold", missing=("W3A16: 120 of 200 sessions",)))
    held = client("GET", "/watch/verdict?fail_on=hold").json
    assert (held["pass"], held["score"], held["missing"]) == (False, 0.5, ["W3A16: 120 of 200 sessions"])
    leave(store, verdict("promote", next_share=0.25))
    good = client("GET", "/watch/verdict?fail_on=hold").json
    assert (good["pass"], good["score"], good["next_share"]) == (True, 1.0, 0.25)


def test_flaggers_hooks_are_answered_as_it_reads_them(store, asked):
    client, _ = asked
    body = {"name": "llm", "namespace": "prod", "phase": "Progressing", "metadata": {}}

    def statuses():
        return [
            client("POST", "/watch/flagger" + query, body).status for query in ("", "?fail_on=hold", "?hook=rollback")
        ]

    assert statuses() == [200, 412, 412]
    leave(store, verdict("promote"))
    assert statuses() == [200, 200, 412]
    leave(store, verdict())
    assert statuses() == [412, 412, 200]
    told = client("GET", "/watch/flagger")
    assert (told.status, told.raw) == (412, b"rollback: rollback, because of validation failures\n")
    assert told.headers["content-type"].startswith("text/plain")


def test_points_and_alarms_are_told_to_scripts(store, asked):
    client, _ = asked
    assert client("GET", "/watch/points").json == {"trial": "", "points": []}
    assert client("GET", "/watch/alarms").json == {"alarms": []}
    points = (point(NOW), point(NOW + 60), point(NOW + 60, "refusal"))
    leave(store, verdict(), alarm(verdict()), points=points)
    told = client("GET", "/watch/points").json
    assert told["trial"] == trial_of().digest
    assert len(told["points"]) == 3
    assert len(client("GET", "/watch/points?signal=refusal").json["points"]) == 1
    assert len(client("GET", f"/watch/points?since={NOW + 60}").json["points"]) == 2
    assert [one["id"] for one in client("GET", "/watch/alarms?limit=5").json["alarms"]] == ["a1"]


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/watch/verdict?fail_on=all", 400, "fail_on: expected rollback or hold, found 'all'"),
        ("/watch/flagger?hook=x", 400, "hook: expected confirm or rollback, found 'x'"),
        ("/watch/points?since=soon", 400, "since: expected a number, found 'soon'"),
        ("/watch/points?since=nan", 400, "since: expected a number, found 'nan'"),
        ("/watch/alarms?limit=0", 400, "limit: expected 1 to 1000, found 0"),
        ("/watch/nothing", 404, "there is no such path here; there are /watch/verdict, /watch/flagger"),
        ("/watch", 404, "there is no such path here"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence(asked, path, status, sentence):
    found = asked[0]("GET", path)
    assert (found.status, sentence in found.json["error"]["message"]) == (status, True), found.raw
    assert asked[0]("DELETE", path).status == 405


def test_a_gateway_with_keys_demands_one_for_the_watch(store, asked):
    _, client = asked
    path = "/watch/verdict"
    assert client("GET", path).status == 401
    assert "quantgate keys new --name NAME --scope watch" in client("GET", path).json["error"]["message"]
    assert client("GET", path, key="qg_wrong").status == 401
    assert client("GET", path, key="qg_u").status == 403
    assert client("GET", path, key="qg_flood").status == 429
    assert client("GET", path, key="qg_w").status == client("GET", path, key="qg_a").status == 200


def test_flagger_which_sends_no_headers_tells_the_key_in_its_metadata(asked):
    _, client = asked
    path = "/watch/flagger"
    assert client("POST", path, {"metadata": {"token": "qg_w"}}).status == 200
    assert client("POST", path, {"metadata": {"token": "qg_u"}}).status == 403
    assert client("POST", path, {"metadata": {"token": 7}}).status == 401
    assert client("POST", path, ["token"]).status == 401
    assert client("GET", path + "?token=qg_w").status == 401, "an address stands in logs"


def test_a_database_that_is_away_fails_no_question_for_the_verdict(tmp_path):
    gone = Store(connect(f"sqlite:///{tmp_path / 'none' / 'watch.db'}"))
    with serving(Verdicts("laptop", gone, live)) as client:
        found = client("GET", "/watch/verdict")
        assert (found.status, found.json["action"], found.json["pass"]) == (200, "hold", True)
        assert client("POST", "/watch/flagger", {}).status == 200
        assert client("POST", "/watch/flagger?hook=rollback", {}).status == 412
        assert client("GET", "/watch/points").status == 503
    gone.close()


def test_the_baseline_is_never_on_trial(store):
    leave(store, verdict("hold"))
    assert said(store, live(9, canary=None, stable=BASE)) == ("hold", "hold, because nothing is on trial on laptop now")
