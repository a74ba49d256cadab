"""Pages and forms over real HTTP, without a browser: who may see and do what, and what every answer bears."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from importlib.resources import files
from pathlib import Path

import pytest
from tests.serve.opened import config_of, served, until
from tests.serve.test_open import registered
from tests.watch.dashboard.conftest import Client, client_of

from quantgate.errors import QuantgateError
from quantgate.records import digest_of
from quantgate.release.lifecycle import hold, promote, ramp, rollback
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.watch.attached import attach
from quantgate.watch.dashboard import answers, evidence
from quantgate.watch.dashboard.sample_gateway import NAMES, TARGET, opened, variant

PAGES = ("", "/alarms", "/latency", "/releases", "/evidence", "/help", "/signals/validation_failure?direction=more")
PARTS = ("/parts/now", "/data/signals/ttft?direction=more", "/moves/ramp")
OURS = files("quantgate.watch.dashboard")


@pytest.mark.parametrize("path", [*PAGES, *PARTS])
def test_nobody_sees_a_page_without_a_key_that_may(healthy, path):
    stranger = client_of(healthy)
    found = stranger("GET", f"/dashboard{path}")
    assert found.status in (303, 401)
    assert "W4A16" not in found.text
    assert client_of(healthy, "watch")("GET", f"/dashboard{path}").status == 200


def test_a_wrong_key_and_one_of_another_scope_do_not_log_in(healthy):
    client = Client(healthy.url)
    assert client.login("qg_k1_nothing").status == 401
    found = client.login(healthy.keys["use"])
    assert found.status == 403
    assert "needs the scope" in found.text
    assert "set-cookie" not in found.headers
    assert healthy.keys["use"] not in found.text
    assert str(healthy.gateway.parts.folder.path) not in client("GET", "/dashboard/login").text


@pytest.mark.parametrize("path", [*PAGES, "/nowhere", "/login", "/static/style.css"])
def test_every_answer_bears_its_headers(healthy, path):
    found = client_of(healthy, "watch")("GET", f"/dashboard{path}")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["referrer-policy"] == "same-origin"
    if "static" not in path:
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
def test_no_page_bears_scripts_styles_or_addresses_of_others(healthy, path):
    text = client_of(healthy, "admin")("GET", f"/dashboard{path}").text
    assert not re.findall(r"<script(?![^>]*\bsrc=)", text)
    assert not re.findall(r"\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.findall(r"""(?:src|href|action|hx-get)=["'](?!/dashboard|\#)""", text)


def test_nothing_of_ours_names_another_host():
    for folder in ("templates", "static"):
        for one in OURS.joinpath(folder).iterdir():
            if "min." in one.name or "LICENSE" in one.name:
                continue
            assert not re.search(r"//(?!www\.w3\.org/2000/svg)[a-z0-9-]+\.[a-z]{2,}", one.read_text()), one.name


def test_vendored_files_are_the_ones_that_the_decision_names():
    told = (Path(__file__).parents[3] / "docs" / "decisions" / "0038-dashboard.md").read_text()
    for name in ("htmx.min.js", "uplot.min.js", "uplot.min.css"):
        assert hashlib.sha256(OURS.joinpath("static", name).read_bytes()).hexdigest() in told


def test_what_others_wrote_is_escaped_everywhere(own):
    evil = "<img src=x onerror=alert(1)>"
    hold(own.registry, TARGET, why=evil)
    client = client_of(own, "admin")
    for path in ("", "/releases", f"/alarms/{evil}", f"/signals/{evil}", f"/moves/canary?variant={evil}"):
        text = client("GET", "/dashboard" + path.replace(" ", "%20").replace("<", "%3C").replace(">", "%3E")).text
        assert "<img" not in text
    assert "&lt;img src=x" in client("GET", "/dashboard/releases").text


def test_a_part_that_has_not_changed_is_not_sent_again(own):
    client = client_of(own, "watch")
    first = client("GET", "/dashboard/parts/now")
    mark = first.headers["x-mark"]
    assert client("GET", "/dashboard/parts/now", x_seen=mark).status == 204
    own.sample.step()
    own.gateway.parts.attached.dashboard.known.forget()
    found = client("GET", "/dashboard/parts/now", x_seen=mark)
    assert found.status == 200
    assert found.headers["x-mark"] != mark


def test_a_move_needs_an_admin_the_sessions_form_and_this_very_site(own):
    admin, watcher = client_of(own, "admin"), client_of(own, "watch")
    form = admin.form("ramp") | {"share": "25", "why": "looks well"}
    assert "needs a key" in watcher("GET", "/dashboard/moves/ramp").text
    token = re.search(r'name="token" value="(\w+)"', watcher("GET", "/dashboard").text)
    assert token
    tries = [
        (watcher, form | {"token": token[1]}, {}, 403),
        (watcher, form, {}, 403),
        (admin, form | {"token": "x"}, {}, 403),
        (admin, form, {"origin": "http://evil.example"}, 403),
        (admin, form, {"origin": "null"}, 403),
        (Client(own.url), form, {}, 401),
        (admin, form, {"content_type": "text/plain"}, 415),
        (admin, form | {"why": "w" * 20_000}, {}, 413),
    ]
    for client, given, headers, status in tries:
        assert client("POST", "/dashboard/moves/ramp", given, **headers).status == status
    assert own.registry.live(TARGET).share == 0.05
    done = admin("POST", "/dashboard/moves/ramp", form)
    assert (done.status, done.headers["location"]) == (303, "/dashboard?moved=4")
    assert own.registry.live(TARGET).share == 0.25
    last = own.registry.history(TARGET)[0]
    assert last.why == "looks well"
    assert last.who == f"key {own.keys['admin'].split('_')[1]}"
    assert own.gateway.parts.router.now.share == 0.25
    assert "Done: W4A16-awq goes from 5 % to 25 %" in admin("GET", done.headers["location"]).text


def test_who_confirms_an_old_state_moves_nothing(own):
    admin = client_of(own, "admin")
    form = admin.form("ramp") | {"share": "50", "why": "more"}
    ramp(own.registry, TARGET, 0.1, why="somebody else")
    found = admin("POST", "/dashboard/moves/ramp", form)
    assert found.status == 409
    assert "somebody moved it meanwhile, it is at revision 4 now" in found.text
    assert 'name="revision" value="4"' in found.text
    assert own.registry.live(TARGET).share == 0.1


@pytest.mark.parametrize(
    ("kind", "more", "status", "told"),
    [
        ("ramp", {"share": "2", "why": "less"}, 409, "a ramp only goes up"),
        ("ramp", {"share": "a lot", "why": "x"}, 422, "expected percent of sessions, such as 25"),
        ("ramp", {"share": "25", "why": " "}, 422, "a reason is missing"),
        ("rollback", {"to": digest_of("W3A16"), "why": "x"}, 409, "never had its traffic"),
        ("lift", {"revision": "3", "why": "x"}, 303, ""),
    ],
)
def test_what_the_registry_says_is_shown(healthy, kind, more, status, told):
    admin = client_of(healthy, "admin")
    form = admin.form("ramp") | more
    found = admin("POST", f"/dashboard/moves/{kind}", form)
    assert found.status == status
    assert told in found.text
    assert healthy.registry.live(TARGET).revision == 3


def test_a_canary_begins_from_the_page_of_releases_and_only_with_a_passed_decision(own):
    admin = client_of(own, "admin")
    rollback(own.registry, TARGET, why="room for another")
    own.gateway.parts.feed.ask()
    text = admin("GET", "/dashboard/releases").text
    asked = re.findall(r"moves/canary\?variant=([^\"&]+)\"", text)
    assert set(asked) == {variant(name).artifact.replace(":", "%3A") for name in NAMES[:2]}
    good, bad = variant(NAMES[1]).artifact, variant(NAMES[2]).artifact
    form = admin.form("canary", f"?variant={bad}") | {"share": "1", "why": "try"}
    refused = admin("POST", "/dashboard/moves/canary", form)
    assert refused.status == 409
    assert "failed" in refused.text
    form = admin.form("canary", f"?variant={good}") | {"share": "1", "why": "try"}
    assert admin("POST", "/dashboard/moves/canary", form).status == 303
    live = own.registry.live(TARGET)
    assert live.canary is not None
    assert (live.canary.name, live.share) == (NAMES[1], 0.01)


def test_a_session_ends_with_its_key(own):
    admin = client_of(own, "admin")
    own.gateway.parts.book.revoke(own.keys["admin"].split("_")[1])
    own.gateway.parts.ring._refresh()
    assert admin("GET", "/dashboard").status == 303
    assert admin("GET", "/dashboard/parts/now", hx_request="true").status == 401


def test_a_gateway_without_keys_is_looked_at_on_its_own_machine_alone(tmp_path):
    with opened(tmp_path, minutes=5, keys=False) as world:
        client = client_of(world)
        assert client("GET", "/dashboard").status == 200
        assert client("GET", "/dashboard", host="evil.example").status == 403
        told = client("GET", "/dashboard/moves/rollback").text
        assert "quantgate keys new --name NAME --scope admin" in told
        assert '<form method="post" action="/dashboard/moves' not in told
        form = {"revision": "3", "why": "x", "token": ""}
        assert client("POST", "/dashboard/moves/rollback", form).status == 401


def test_a_database_that_is_away_costs_a_sentence_and_no_page(own):
    client = client_of(own, "watch")
    file = own.gateway.parts.folder.path / "exchanges.db"
    with sqlite3.connect(file) as link:
        link.execute("DROP TABLE exchanges")
    for path in ("/latency", "/signals/validation_failure?direction=more"):
        found = client("GET", f"/dashboard{path}")
        assert found.status == 200
        assert "cannot be read now" in found.text


def test_an_alarm_shows_its_exchanges_and_tells_of_those_that_are_gone(tmp_path):
    with opened(tmp_path, "worse", minutes=160) as world:
        world.write()
        client = client_of(world, "watch")
        (alarm,) = world.sample.alarms(TARGET)
        kept = set(re.findall(r"/dashboard/exchanges/(req_\w+)", client("GET", f"/dashboard/alarms/{alarm.id}").text))
        decided = next(one for one in alarm.verdict.findings if one.signal == alarm.verdict.signal)
        told = client("GET", f"/dashboard/alarms/{alarm.id}").text
        assert kept <= set(decided.examples)
        assert all(one in told for one in decided.examples)
        verdict = world.sample.verdict(TARGET)
        assert verdict is not None
        newest = next(one for one in verdict.findings if one.signal == "validation_failure")
        page = client("GET", f"/dashboard/exchanges/{newest.examples[-1]}")
        assert page.status == 200
        assert "invalid_json" in page.text
        assert "Prompt and answer are not kept" in page.text


def test_the_report_of_a_run_is_served_bound_hand_and_foot(tmp_path):
    run = tmp_path / "runs"
    (run / "targets").mkdir(parents=True)
    (run / "report.html").write_text("<h1>the report</h1>")
    (run / "targets" / "fleet.html").write_text("<h1>fleet</h1>")
    (run / "secret.html").write_text("no page of a run")
    (run / "report.json").write_text(json.dumps({"artifact": digest_of("a")}))
    (tmp_path / "outside.html").write_text("secret")
    (run / "targets" / "link.html").symlink_to(tmp_path / "outside.html")
    made = variant("a").model_copy(update={"artifact": digest_of("a"), "location": str(run / "artifacts" / "a")})
    assert evidence.report_page(made, "report.html") == "<h1>the report</h1>"
    assert evidence.report_page(made, "targets/fleet.html") == "<h1>fleet</h1>"
    for name in ("secret.html", "../outside.html", "targets/../report.html", "targets/link.html", "report.json", ""):
        with pytest.raises(QuantgateError, match=r"does not lie on this machine|is no page of a report"):
            evidence.report_page(made, name)
    other = made.model_copy(update={"artifact": digest_of("b")})
    assert evidence.folder_of(other) is None
    assert "sandbox" in answers.REPORT_POLICY
    assert "script-src" not in answers.REPORT_POLICY


def test_the_watch_of_a_gateway_is_shown_with_its_own_evidence(tmp_path):
    registry, url = registered(tmp_path, W4A16="pass")
    promote(registry, "laptop", "W4A16", canary=0.5, why="try it")
    with ScriptedUpstream() as one, ScriptedUpstream() as other:
        config = config_of(tmp_path, {"BF16": one, "W4A16": other}, registry=url)
        with served(config, attach=attach) as (_, client):
            for at in range(40):
                assert client.chat(session=f"s{at}").status == 200
            until(lambda: b"Empty answer" in client("GET", "/dashboard").raw)
            page = client("GET", "/dashboard").raw.decode()
            assert "W4A16" in page
            assert "live, counted up to" in page
            told = client("GET", "/dashboard/data/signals/empty?direction=more").json
            assert set(told) >= {"at", "trial", "control", "evidence", "threshold"}
            assert b"the whole request" in client("GET", "/dashboard/latency").raw
            for path in ("/signals/empty?direction=more", "/alarms", "/releases", "/evidence"):
                assert client("GET", f"/dashboard{path}").status == 200
            assert client("GET", "/v1/models").status == 200
    registry.close()
