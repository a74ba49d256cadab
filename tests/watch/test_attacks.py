"""Who attacks the dashboard and the routes of the watch, over sockets: strangers, other sites' pages, those who may
look and want to move, and those who write what others read."""

from __future__ import annotations

import contextlib
import html.parser
import http.client
import json
import logging
import re
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.serve.opened import Client as Caller
from tests.serve.opened import config_of, until
from tests.watch.dashboard.conftest import Client, client_of
from tests.watch.test_webhooks import Inbox, desk, file

from quantgate.errors import Moved
from quantgate.release.lifecycle import hold, ramp
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.serve.open import Around, ServedGateway, open_gateway
from quantgate.serve.refusals import Refused
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.watch import Alarm, Trial
from quantgate.watch.attached import attach
from quantgate.watch.dashboard import moves
from quantgate.watch.dashboard.sample_gateway import NAMES, TARGET, World, opened
from quantgate.watch.dashboard.sessions import ADDRESSES, COOKIE, WRONG, Sessions

EVIL = "<img src=x onerror=alert(1)>\"'{{7*7}}"
PAGES = ("", "/alarms", "/latency", "/releases", "/evidence", "/help", "/parts/now", "/moves/rollback", "/moves/canary")
SECRET_TEXT = "The swordfish is in the third drawer."
LIVE = {"baseline": "BF16", "canary": "W4A16", "share": 0.5}


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Iterator[World]:
    """Nobody moves it: whoever can has won."""
    with opened(tmp_path_factory.mktemp("still"), minutes=10) as world:
        yield world
        assert world.registry.live(TARGET).revision == 3


@pytest.fixture
def own(tmp_path) -> Iterator[World]:
    with opened(tmp_path, minutes=10) as world:
        yield world


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Iterator[tuple[ServedGateway, Caller]]:
    """A gateway without keys, with a real watch."""
    with watched(tmp_path_factory.mktemp("bare")) as made:
        yield made


@contextlib.contextmanager
def watched(folder: Path, **keys: Any) -> Iterator[tuple[ServedGateway, Caller]]:
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        config = config_of(folder, {"BF16": base, "W4A16": canary}, live=LIVE, **keys)
        gateway = open_gateway(config, Around({}, attach=attach))
        with Running(gateway) as running:
            yield gateway, Caller(running.port)


def port_of(world: World) -> int:
    return int(world.url.rpartition(":")[2])


def said(port: int, raw: bytes, *more: bytes) -> bytes:
    """All that a server answers to these bytes, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        parts = []
        with contextlib.suppress(ConnectionError):
            for one in (raw, *more):
                link.sendall(one)
            while part := link.recv(2**16):
                parts.append(part)
        return b"".join(parts)


class Tags(html.parser.HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def harmless(text: str) -> None:
    for tag, attributes in Tags(text).found:
        assert tag not in ("img", "iframe", "object", "embed", "base", "style")
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag != "script" or (attributes["src"] or "").startswith("/dashboard/static/")
        assert not (attributes.get("href") or "").lower().startswith(("javascript:", "data:", "//"))
    assert "&#39;49" not in text, "a template made 49 of what somebody wrote"


# What others wrote


def test_names_reasons_and_sentences_of_others_are_text_on_every_page(own):
    evil, digest = EVIL, own.registry.live(TARGET).canary.artifact
    sample = own.sample
    sample.trial = Trial(target=TARGET, variant=evil, artifact=digest, control=evil, control_artifact=evil)
    sample.story = "worse"
    verdict = sample.step()
    findings = tuple(one.model_copy(update={"sentence": evil, "examples": (evil,)}) for one in verdict.findings)
    hostile = verdict.model_copy(update={"because": evil, "missing": (evil,) * 9, "findings": findings})
    sample._verdict = hostile
    sample._alarms = [Alarm(id="evil", verdict=hostile, done="refused", told=evil, webhooks=(evil,), decided_at=1.0)]
    hold(own.registry, TARGET, why=evil)
    own.gateway.parts.feed.ask()
    own.gateway.parts.attached.dashboard.known.forget()
    client = client_of(own, "admin")
    shown = 0
    for path in (*PAGES, "/alarms/evil", "/signals/ttft?direction=more", "/moves/lift", "/moves/ramp"):
        found = client("GET", f"/dashboard{path}")
        assert found.status == 200
        harmless(found.text)
        shown += "&lt;img src=x onerror" in found.text
    assert shown >= 5


def test_what_a_client_and_a_model_wrote_is_text_on_the_page_of_its_exchange(tmp_path):
    with watched(tmp_path, exchanges={"keep_text": True}) as (gateway, client):
        text = EVIL + "</pre><script>alert(1)</script>"
        asked = {"model": "laptop", "messages": [{"role": "user", "content": text, "name": "x"}], "user": text}
        assert client("POST", "/v1/chat/completions", asked, x_session_id=EVIL, user_agent=EVIL).status == 200
        reader = Reader(connect(gateway.parts.folder.exchanges))
        until(reader.last)
        ((_, row),) = reader.since()
        reader.close()
        assert row.text is not None
        found = client("GET", f"/dashboard/exchanges/{row.id}")
        assert found.status == 200
        harmless(found.raw.decode())
        assert "alert(1)" in found.raw.decode(), "it is shown, where it is kept"
        for path in PAGES:
            harmless(client("GET", f"/dashboard{path}").raw.decode())


@pytest.mark.parametrize("where", ["signals", "alarms", "exchanges", "moves", "report", "nowhere", "data/signals"])
def test_what_stands_in_an_address_is_text_in_the_answer(still, where):
    client = client_of(still, "watch")
    name = "".join(f"%{one:02x}" for one in (EVIL + "</title><script>alert(1)</script>\r\nx-evil: 1").encode())
    found = client("GET", f"/dashboard/{where}/{name}?direction={name}&variant={name}&moved={name}&share={name}")
    assert found.status in (200, 404)
    assert "x-evil" not in found.headers
    if found.headers["content-type"].startswith("text/html"):
        harmless(found.text)
    assert found.headers["x-content-type-options"] == "nosniff"


# Other sites' pages


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": ""},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://["},
        {"origin": "http://evil.example#@127.0.0.1"},
        {"content_type": "text/plain"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "application/json"},
        {"x_http_method_override": "POST", "origin": "http://evil.example"},
    ],
)
def test_a_page_of_another_site_moves_nothing_and_logs_nobody_in(still, headers, caplog):
    admin = client_of(still, "admin")
    form = admin.form("ramp") | {"share": "25", "why": "csrf"}
    assert admin("POST", "/dashboard/moves/ramp", form, **headers).status in (403, 415)
    found = Client(still.url)("POST", "/dashboard/login", {"key": still.keys["admin"]}, **headers)
    assert found.status in (403, 415)
    assert "set-cookie" not in found.headers
    assert admin("POST", "/dashboard/logout", {"token": form["token"]}, **headers).status in (403, 415)
    assert admin("GET", "/dashboard").status == 200
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_who_names_neither_a_host_nor_an_origin_is_not_of_this_site(still):
    body = f"key={still.keys['admin']}".encode()
    head = (
        b"POST /dashboard/login HTTP/1.0\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: %d\r\n"
    )
    told = said(port_of(still), head % len(body) + b"\r\n" + body)
    assert b" 403 " in told.splitlines()[0]
    assert b"set-cookie" not in told


def test_a_form_of_another_session_or_of_one_that_ended_is_good_for_nothing(still):
    one, other = client_of(still, "admin"), client_of(still, "admin")
    form = one.form("ramp") | {"share": "25", "why": "replayed"}
    assert other("POST", "/dashboard/moves/ramp", form).status == 403
    copied = one.cookie
    assert one("POST", "/dashboard/logout", {"token": form["token"]}).status == 303
    one.cookie = copied
    assert one("POST", "/dashboard/moves/ramp", form).status == 401
    again = client_of(still, "admin")
    assert again("POST", "/dashboard/moves/ramp", form).status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_but_a_post_moves(still, method):
    admin = client_of(still, "admin")
    form = admin.form("ramp") | {"share": "25", "why": "link"}
    query = "&".join(f"{name}={value}" for name, value in form.items())
    link = http.client.HTTPConnection(admin.host, timeout=30)
    with contextlib.closing(link):
        link.request(method, f"/dashboard/moves/ramp?{query}&_method=POST", headers={"cookie": admin.cookie})
        answer = link.getresponse()
        assert answer.status == (200 if method in ("GET", "HEAD") else 400 if method == "BREW" else 405)
        assert answer.headers.get("access-control-allow-origin") is None
        assert method != "HEAD" or answer.read() == b""


@pytest.mark.parametrize("path", ["/watch/verdict", "/watch/flagger", "/watch/points", "/watch/alarms", "/dashboard",
                                  "/dashboard/who", "/dashboard/login", "/dashboard/exchanges/x"])  # fmt: skip
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "0.0.0.0:1", "localhost.evil"])
def test_a_name_that_was_turned_to_this_machine_reads_nothing_of_an_open_gateway(bare, path, host, caplog):
    _, client = bare
    told = said(client.port, f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    assert told.split(b" ")[1] == b"403", told[:200]
    assert b"W4A16" not in told
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    own = said(client.port, f"GET {path} HTTP/1.1\r\nhost: localhost:1\r\nconnection: close\r\n\r\n".encode())
    assert own.split(b" ")[1] in (b"200", b"404")


# Cookies and keys


def test_a_cookie_of_somebody_elses_choice_is_not_the_session_that_a_login_begins(still):
    watcher = client_of(still, "watch")
    victim = Client(still.url)
    victim.cookie = watcher.cookie  # planted before the login
    victim.login(still.keys["admin"])
    assert victim.cookie != watcher.cookie
    assert "may move" in victim("GET", "/dashboard").text
    assert "may move" not in watcher("GET", "/dashboard").text


@pytest.mark.parametrize(
    "around",
    [
        'theme={"a": 1}; %s',
        "path=/; a[b]=1; %s",
        'x="unended; %s',
        f"{COOKIE}=planted.by_another_port; %s",
        f"%s; {COOKIE}=planted.by_another_port",
        f'{COOKIE}=""; %s; other=é',
    ],
)
def test_cookies_of_others_do_not_end_a_session(still, around):
    admin = client_of(still, "admin")
    admin.cookie = around % admin.cookie
    assert admin("GET", "/dashboard").status == 200


def test_a_long_cookie_keeps_nobody_waiting(still):
    """The library's own parser took 4 s for half as much, in the loop that answers everybody."""
    heavy = f'{COOKIE}="' + "\\" * 60_000 + '"'

    def ask(_: int) -> int:
        client = Client(still.url)
        client.cookie = heavy
        return client("GET", "/dashboard").status

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(8))) == {303}  # each waits 30 s at most


def test_an_api_key_or_a_made_up_header_is_no_session(still):
    key = still.keys["admin"]
    client = Client(still.url)
    for name, value in (("authorization", f"Bearer {key}"), ("x_user", "admin"), ("cookie", f"{COOKIE}={key}")):
        assert client("GET", "/dashboard", None, **{name: value}).status == 303
        assert client("GET", "/dashboard/data/signals/ttft", None, **{name: value}).status == 401


@pytest.mark.parametrize(
    "query", ["?next=//evil.example", "?next=%0d%0aset-cookie:%20a=b", "/?url=https://evil.example"]
)
def test_a_login_leads_nowhere_else(still, query):
    found = Client(still.url)(
        "POST", f"/dashboard/login{query}", {"key": still.keys["watch"], "next": "//evil.example"}
    )
    assert (found.status, found.headers["location"]) == (303, "/dashboard")
    assert found.headers["set-cookie"].startswith(f"{COOKIE}=")


def test_guessing_is_slowed_whatever_address_a_header_names_and_hurts_nobody_who_is_in(own):
    watcher, guesser = client_of(own, "watch"), Client(own.url)
    found = [
        guesser(
            "POST", "/dashboard/login", {"key": f"qg_k1_{at}"}, x_forwarded_for=f"10.0.0.{at}", forwarded=f"for={at}"
        )
        for at in range(WRONG + 3)
    ]
    assert [one.status for one in found] == [401] * WRONG + [429] * 3
    assert 0 < int(found[-1].headers["retry-after"]) <= 60
    assert watcher("GET", "/dashboard").status == 200
    assert Caller(port_of(own))("GET", "/v1/models", key=own.keys["use"]).status == 200


def test_wrong_keys_from_everywhere_cost_a_bounded_memory_and_forgive_nobody():
    sessions = Sessions(b"s" * 32, lambda _: None, lambda _: None)

    def guess(address: str, times: int = 1) -> int:
        for _ in range(times):
            with pytest.raises(Refused) as problem:
                sessions.begin("guess", address)
        return problem.value.status

    for number in range(ADDRESSES):
        guess(f"early {number}")
    assert guess("bad", WRONG) == 401
    assert guess("bad") == 429
    for number in range(ADDRESSES - 1):
        guess(f"late {number}")
    guess("late 5")  # the table is full, and this one has its place in it
    assert guess("bad") == 429
    assert len(sessions._wrong) == ADDRESSES


def test_a_key_that_ends_while_its_form_is_on_the_way_moves_nothing(own):
    admin = client_of(own, "admin")
    form = admin.form("ramp") | {"share": "25", "why": "too late"}
    body = "&".join(f"{name}={value.replace(' ', '+')}" for name, value in form.items()).encode()
    head = (
        f"POST /dashboard/moves/ramp HTTP/1.1\r\nhost: {admin.host}\r\norigin: {own.url}\r\ncookie: {admin.cookie}\r\n"
        f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        "expect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port_of(own)), timeout=30) as link:
        link.sendall(head.encode())
        assert b"100 Continue" in link.recv(2**16), "the gateway waits for the body now"
        own.gateway.parts.book.revoke(own.keys["admin"].split("_")[1])
        own.gateway.parts.ring._refresh()
        link.sendall(body)
        assert b" 401 " in link.recv(2**16).splitlines()[0]
    assert own.registry.live(TARGET).revision == 3


# Two at once


def test_of_many_who_press_at_once_one_moves_it(own):
    start = threading.Barrier(8)
    pressing = []
    for number in range(8):
        client = client_of(own, "admin")
        pressing.append((client, client.form("ramp") | {"share": str(20 + number), "why": f"press {number}"}))

    def press(one: tuple[Client, dict[str, str]]) -> int:
        start.wait(30)
        return one[0]("POST", "/dashboard/moves/ramp", one[1]).status

    with ThreadPoolExecutor(8) as threads:
        statuses = sorted(threads.map(press, pressing))
    assert statuses == [303] + [409] * 7
    assert own.registry.live(TARGET).revision == 4


class Meanwhile:
    """A registry in which somebody else is faster, just before the ``at``-th look at what is live or the move."""

    def __init__(self, registry: Any, at: int, other: Any) -> None:
        self.registry, self.left, self.other = registry, at, other

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)

    def _first(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.other(self.registry)

    def live(self, target: str) -> Any:
        self._first()
        return self.registry.live(target)

    def move(self, *given: Any, **told: Any) -> Any:
        self._first()
        return self.registry.move(*given, **told)

    def move_from(self, *given: Any) -> Any:
        self._first()
        return self.registry.move_from(*given)


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("kind", ["ramp", "hold", "rollback", "promote"])
def test_who_was_overtaken_at_any_moment_moves_nothing(own, kind, at):
    form = {"revision": "3", "why": "mine", "share": "50", "force": "yes"}
    registry = Meanwhile(own.registry, at, lambda one: ramp(one, TARGET, 0.1, why="faster"))
    with pytest.raises(Moved):
        moves.do(registry, TARGET, kind, form, lambda _: "")
    live = own.registry.live(TARGET)
    assert (live.revision, live.share, live.frozen) == (4, 0.1, False)
    assert [one.why for one in own.registry.history(TARGET)][:2] == ["faster", "forty quiet minutes"]


# Sizes and shapes


WAYS = (
    "../app.py", "..%2fapp.py", "%2e%2e/app.py", "%252e%252e%252fapp.py", "%2fetc%2fpasswd", "..%5capp.py",
    "a%00.js", "....//app.py", "style.css/../../app.py", "", ".", "%c0%ae%c0%ae/app.py",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["static", "report", "report/targets", "exchanges", "alarms"])
def test_no_way_leads_out_of_the_folders(still, where, way):
    client = client_of(still, "admin")
    found = client("GET", f"/dashboard/{where}/{way}")
    assert found.status == 404 or (where == "alarms" and way in ("", "."))
    assert "root:" not in found.text
    assert "class Dashboard" not in found.text


def test_file_names_that_strangers_make_up_are_not_kept(still):
    client = Client(still.url)
    client("GET", "/dashboard/static/" + "w" * 30_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            assert client("GET", f"/dashboard/static/{number}{'x' * 30_000}").status in (303, 404)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_500_000  # the names are three million bytes


@pytest.mark.parametrize("path", ["/dashboard/login", "/dashboard", "/dashboard/signals/ttft"])
def test_too_many_fields_are_told_and_no_fault_of_ours(still, path, caplog):
    found = client_of(still, "watch")("GET", path + "?" + "a=1&" * 40)
    assert found.status == 400
    assert "at most 32 fields" in found.text
    for odd in ("?direction=%00", "?a=%ff%00"):
        assert client_of(still, "watch")("GET", path + odd).status == 400
    for gone in ("exchanges/%00", "alarms/a%00b", "data/signals/%00"):
        assert client_of(still, "watch")("GET", f"/dashboard/{gone}").status == 404
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "query",
    [
        "a=1&" * 40,
        "limit=1e400",
        "limit=-1",
        "since=nan",
        "since=inf",
        "fail_on=" + "x" * 30_000,
        "hook=%00",
        "variant=%00",
        "variant=a%0aforged:+everything+is+well",
        "limit=%00",
        "since=%1b%5b2J",
    ],
)
def test_questions_of_any_shape_are_one_short_sentence(bare, query, caplog):
    _, client = bare
    path = {"l": "alarms", "s": "points"}.get(query[0], "verdict")
    found = client("GET", f"/watch/{path}?{query}")
    assert found.status == 400
    assert len(found.raw) < 1000
    assert found.json["error"]["message"]
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("query", ["variant=%ff%ed%a0%80", "variant=" + "v" * 30_000, "trial=x&since=1e14"])
def test_questions_about_what_nobody_knows_are_a_hold(bare, query):
    _, client = bare
    found = client("GET", f"/watch/verdict?{query}")
    assert (found.status, found.json["action"]) == (200, "hold")
    assert len(found.raw) < 30_000
    assert found.headers["x-content-type-options"] == "nosniff"
    assert client("GET", f"/watch/points?{query}").status == 200


@pytest.mark.parametrize(
    "raw", [b"[" * 60_000, b'{"metadata":' * 5000, b"\xff\xfe", b'{"metadata": {"token": 7}}', b"0"]
)
def test_a_hooks_body_of_any_shape_opens_nothing(still, raw, tmp_path):
    with watched(tmp_path) as (gateway, _):
        secret = gateway.parts.book.new("a", frozenset({"watch"}))[1]
        assert secret.startswith("qg_")
    with watched(tmp_path) as (_, client):
        head = b"POST /watch/flagger HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        assert said(client.port, head % len(raw) + raw).split(b" ")[1] == b"401"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (
            b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
            b"0\r\n\r\nGET /dashboard/who HTTP/1.1\r\nhost: x\r\n\r\n",
        ),
        (b"content-length: 5\r\ncontent-length: 50\r\n", b"key=aGET /dashboard/who HTTP/1.1\r\nhost: x\r\n\r\n"),
        (b"transfer-encoding: xchunked\r\n", b"key=a"),
        (b"content-length: +5\r\n", b"key=a"),
        (b"content-length: -1\r\n", b"key=a"),
    ],
)
def test_no_second_request_is_smuggled_behind_a_form(still, head, body):
    start = b"POST /dashboard/login HTTP/1.1\r\nhost: x\r\norigin: http://x\r\n"
    kind = b"content-type: application/x-www-form-urlencoded\r\n"
    told = said(port_of(still), start + kind + head + b"\r\n" + body)
    assert told.count(b"HTTP/1.1 ") <= 1
    assert b'{"in"' not in told


def test_a_form_without_end_is_cut_off(still):
    head = b"POST /dashboard/login HTTP/1.1\r\nhost: x\r\norigin: http://x\r\ntransfer-encoding: chunked\r\n\r\n"
    told = said(port_of(still), head, *[b"1000\r\n" + b"k" * 4096 + b"\r\n"] * 200)
    assert not told or told.split(b" ")[1] == b"413"
    assert client_of(still, "watch")("GET", "/dashboard").status == 200


def test_a_reason_is_one_short_line_for_whoever_reads_it_on_a_terminal(own, caplog):
    admin = client_of(own, "admin")
    form = admin.form("hold")
    assert admin("POST", "/dashboard/moves/hold", form | {"why": "w" * 401}).status == 422
    assert admin("POST", "/dashboard/moves/hold", form | {"why": "\u202e\x1b\r\n"}).status == 422
    assert admin("POST", "/dashboard/moves/hold", form | {"why": "x\x00"}).status == 400
    with caplog.at_level(logging.INFO):
        bad = admin.form("ramp") | {"why": "x", "share": "1\nforged: everything is well"}
        assert admin("POST", "/dashboard/moves/ramp", bad).status == 422
    assert any("refused" in one.message for one in caplog.records)
    assert not any("\n" in one.message for one in caplog.records)
    why = "calm\r\n\x1b[2Jrevision 9 by root\u202e"
    assert admin("POST", "/dashboard/moves/hold", form | {"why": why}).status == 303
    assert own.registry.history(TARGET)[0].why == "calm [2Jrevision 9 by root"


# Scopes and secrets


def test_who_may_look_moves_nothing_and_who_may_ask_sees_nothing(still):
    watcher = client_of(still, "watch")
    token = re.search(r'name="token" value="(\w+)"', watcher("GET", "/dashboard").text)
    assert token is not None
    for kind in moves.KINDS:
        form = {"token": token[1], "revision": "3", "why": "x", "share": "50", "variant": NAMES[0], "force": "yes"}
        assert watcher("POST", f"/dashboard/moves/{kind}", form).status == 403
        assert '<form method="post" action="/dashboard/moves' not in watcher("GET", f"/dashboard/moves/{kind}").text
    assert watcher("POST", "/dashboard/moves/open", {"token": token[1]}).status == 404
    asker = Client(still.url)
    assert asker.login(still.keys["use"]).status == 403
    for path in PAGES:
        assert asker("GET", f"/dashboard{path}").status == 303


def test_no_page_log_figure_or_file_tells_a_key_or_a_text(tmp_path, caplog):
    with watched(tmp_path) as (gateway, _):
        book = gateway.parts.book
        keys = {scope: book.new(scope, frozenset({scope}))[1] for scope in ("use", "watch", "admin")}
    with caplog.at_level(logging.DEBUG), watched(tmp_path) as (gateway, client):
        asked = {"model": "laptop", "messages": [{"role": "user", "content": SECRET_TEXT}]}
        for number in range(20):
            told = client("POST", "/v1/chat/completions", asked, key=keys["use"], x_session_id=f"s{number}")
            assert told.status == 200
        until(lambda: client("GET", "/watch/verdict", key=keys["watch"]).json["signals"])
        reader = Reader(connect(gateway.parts.folder.exchanges))
        rows = [one for _, one in reader.since()]
        reader.close()
        viewer = Client(f"http://127.0.0.1:{client.port}")
        mistyped = keys["admin"][:-1]
        shown = viewer.login(mistyped).text
        viewer.login(keys["admin"])
        paths = [
            *PAGES,
            "/login",
            "/signals/empty",
            "/data/signals/empty",
            *(f"/exchanges/{one.id}" for one in rows[:3]),
        ]
        answers = [viewer("GET", f"/dashboard{path}") for path in paths]
        assert {one.status for one in answers} == {200}
        shown += "".join(one.text for one in answers)
        for path in ("verdict", "flagger", "points", "alarms"):
            shown += client("GET", f"/watch/{path}", key=keys["watch"]).raw.decode()
        shown += client("GET", "/metrics").raw.decode() + caplog.text
    assert "W4A16" in shown
    stored = b"".join(one.read_bytes() for one in (tmp_path / "data").rglob("*") if one.is_file())
    assert rows[0].id.encode() in stored
    for secret in (*keys.values(), mistyped, SECRET_TEXT, "swordfish", SECRET_TEXT[::-1]):
        assert secret not in shown
        assert secret.encode() not in stored


# Webhooks


class Hostile(Inbox):
    """Answers every alarm with these bytes, for ever if told so."""

    def __init__(self, raw: bytes, *, more: bytes = b"") -> None:
        super().__init__(200)
        inbox = self

        class Handler(self.server.RequestHandlerClass):  # type: ignore[name-defined, misc]
            def do_POST(self) -> None:
                inbox.got.append((self.path, {}, self.rfile.read(int(self.headers["content-length"]))))
                with contextlib.suppress(OSError):
                    self.wfile.write(raw)
                    while more and not inbox.over.is_set():
                        self.wfile.write(more)
                self.close_connection = True

        self.server.RequestHandlerClass = Handler


@contextlib.contextmanager
def hostile(raw: bytes, *, more: bytes = b"") -> Iterator[Hostile]:
    inbox = Hostile(raw, more=more)
    thread = threading.Thread(target=inbox.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield inbox
    finally:
        inbox.over.set()
        inbox.server.shutdown()
        inbox.server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("raw", "more"),
    [
        (b"HTTP/1.1 TOPSECRET <img src=x>\r\n\r\n", b""),
        (b"HTTP/1.1 99999999999999999999 TOPSECRET\r\n\r\n", b""),
        (b"HTTP/1.1 500 TOPSECRET\r\nx-a: TOPSECRET\r\ncontent-length: 9999999999\r\n\r\n", b"TOPSECRET"),
        (b"HTTP/1.1 302 TOPSECRET\r\nlocation: file:///TOPSECRET\r\n\r\n", b""),
        (b"HTTP/1.1 ", b"TOPSECRET"),
        (b"HTTP/1.1 200 OK\r\n", b"x-a: TOPSECRET\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nx-a: ", b"TOPSECRET" * 1000),
        (b"\x15\x03\x01\x00\x02\x02\x28", b""),
        (b"", b""),
    ],
)
def test_whatever_a_webhook_answers_it_is_given_up_and_none_of_it_is_kept(tmp_path, raw, more, caplog):
    with hostile(raw, more=more) as inbox, desk(file(tmp_path), inbox.hook(timeout="0.3s"), for_s=0.05) as made:
        (told,) = made.told(made.tell(), "given up")
        assert "TOPSECRET" not in told + caplog.text + str(made.postman.trouble)
        assert made.store.due("fleet") == []
    assert b"TOPSECRET" not in (tmp_path / "watch.db").read_bytes()
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert all(json.loads(body)["event"] == "rollback" for _, _, body in inbox.got)
