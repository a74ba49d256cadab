"""What must never be told or lost, whatever goes wrong around a running gateway: secrets, budgets, releases."""

from __future__ import annotations

import http.client
import json
import sqlite3
import stat
import threading
from collections import Counter
from typing import Any

import pytest
from tests.serve.databases import url
from tests.serve.opened import HELLO, Client, config_of, served, until
from tests.serve.test_admin import CALL, PAY, ROUTE
from tests.serve.test_exchanges import exchange
from tests.serve.test_open import exchanges, from_registry, registered
from tests.serve.test_shadow import Purse, copied, request

from quantgate.release.lifecycle import promote, rollback
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Journal, Reader
from quantgate.serve.open import Around, open_gateway
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve_config import Budget

__all__ = ["url"]
PROMPT, ANSWER, UPSTREAMS = "zebra-prompt-text", "zebra-answer-text", "sk-upstream-secret-1"


@pytest.fixture
def upstream():
    with ScriptedUpstream(key=UPSTREAMS) as made:
        yield made


def keyed(config, **budgets: dict[str, str]) -> list[str]:
    """Secrets of new keys, by their budgets, and of one of scope admin."""
    before = open_gateway(config, Around({}))
    made = [before.parts.book.new(name, budget=Budget.model_validate(limits))[1] for name, limits in budgets.items()]
    made.append(before.parts.book.new("ops", frozenset({"admin"}))[1])
    before.parts.close()
    return made


def raw(status: int, body: Any) -> Script:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return Script(raw=head.encode() + data)


def test_no_secret_and_no_text_is_kept_or_told(tmp_path, upstream, caplog):
    caplog.set_level("DEBUG")
    endpoint = {"url": upstream.url, "model": "scripted", "api_key_env": "UPSTREAM_KEY"}
    variants = {"BF16": {"endpoint": endpoint, "weights": "sha256:BF16"}}
    config = config_of(tmp_path, {}, live={"baseline": "BF16"}, variants=variants)
    app, admin = keyed(config, app={"tokens": "1M/day"})
    said = [{"role": "user", "content": PROMPT}]
    error = {"error": {"message": f"bad key {UPSTREAMS}: {PROMPT}", "code": "x"}}
    named = {"name": "a", "schema": {"type": "object"}}
    schema = {"response_format": {"type": "json_schema", "json_schema": named}}
    scripts = (
        *(Script(text=ANSWER + more) for more in ("", " {")), Script("no_usage", text=ANSWER), Script("error_event"),
        *(Script(kind, after=3, text=ANSWER) for kind in ("cut", "malformed")), raw(400, error), raw(500, error),
    )  # fmt: skip
    told = b""
    gateway = open_gateway(config, Around({"UPSTREAM_KEY": UPSTREAMS}))
    with Running(gateway) as running:
        client = Client(running.port)
        for stream in (False, True):
            body = {"model": "laptop", "messages": said, "stream": stream, "user": "zebra-user"}
            turn = {"model": "laptop", "input": PROMPT, "stream": stream, "text": {"format": {"type": "json_object"}}}
            asks = (("chat/completions", body), ("responses", turn), ("chat/completions", {**body, **schema}))
            for script in scripts:
                for path, ask in asks:
                    upstream.next(script, script)
                    client("POST", f"/v1/{path}", ask, key=app)
                    upstream.forget()
        client("POST", "/v1/chat/completions", {"messages": said}, key=app)
        client("POST", f"/v1/{PROMPT}", {"model": PROMPT, "messages": said}, key=app[:-1])
        for path in (
            "/metrics",
            "/ready",
            "/admin/live",
            "/admin/keys",
            "/admin/releases",
            "/v1/models",
            "/openapi.json",
        ):
            told += client("GET", path, key=admin).raw
        until(lambda: gateway.parts.journal.written >= 40)
    files = {file.name: file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()}
    everything = {**files, "pages": told, "log": caplog.text.encode()}
    assert len(upstream.asked) > 40
    for name, content in everything.items():
        for secret in (PROMPT, ANSWER, UPSTREAMS, app, admin, "zebra-user"):
            assert secret.encode() not in content, (name, secret)
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600


def lying(tokens: Any) -> Script:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return raw(200, {"choices": [choice], "usage": {"prompt_tokens": tokens, "completion_tokens": tokens}})


@pytest.mark.parametrize("tokens", [2**63, 2**64 - 1, -(2**63), 1e300, "9" * 400, True])
def test_an_upstreams_lies_about_tokens_close_no_budget(tmp_path, tokens):
    with ScriptedUpstream() as upstream:
        config = config_of(tmp_path, {"BF16": upstream}, live={"baseline": "BF16"})
        one, other, _ = keyed(config, one={"tokens": "1M/day"}, other={"tokens": "1M/day"})
        with served(config) as (gateway, client):
            upstream.next(lying(tokens), lying(tokens))
            assert [client.chat(key=one).status for _ in range(2)] == [200, 200]
            assert [client.chat(key=key).status for key in (one, other, one, other)] == [200] * 4
            assert gateway.parts.ledger.trouble is None
        assert len(exchanges(gateway)) == 6


def test_an_answer_that_tells_no_count_is_not_free(tmp_path):
    with ScriptedUpstream(lambda _body: "w " * 4000, always=lambda _body: Script("no_usage")) as upstream:
        config = config_of(tmp_path, {"BF16": upstream}, live={"baseline": "BF16"}, limits={"answer_tokens": 400})
        small, _ = keyed(config, small={"tokens": "3000/day"})
        with served(config) as (_, client):
            got = [client.chat(key=small).status for _ in range(12)]
        assert got[:2] == [200, 200] and got[-1] == 429


def test_a_database_that_is_locked_for_long_opens_nothing_and_comes_back(tmp_path):
    with ScriptedUpstream() as upstream:
        config = config_of(tmp_path, {"BF16": upstream}, live={"baseline": "BF16"})
        rich, poor, _ = keyed(config, rich={"tokens": "100M/day"}, poor={"tokens": "100M/day"})
        with served(config) as (gateway, client):
            assert client.chat(key=rich).status == 200
            lock = sqlite3.connect(tmp_path / "data" / "state.db", isolation_level=None)
            lock.execute("BEGIN EXCLUSIVE")
            assert client.chat(key=rich).status == 200  # of the lease that it has
            closed = client.chat(key=poor)
            assert (closed.status, closed.json["error"]["code"]) == (503, "ledger_unreachable")
            lock.execute("ROLLBACK")
            lock.close()
            until(lambda: client.chat(key=poor).status == 200)
            until(lambda: gateway.parts.ledger.trouble is None and gateway.parts.ring.trouble is None)


def test_one_approval_is_fetched_once_by_one_key_however_many_ask(tmp_path):
    with ScriptedUpstream() as upstream:
        config = config_of(tmp_path, {"BF16": upstream}, live={"baseline": "BF16"}, routes=[ROUTE])
        mine, theirs, admin = keyed(config, mine={}, theirs={})
        body = {"model": "laptop", "messages": HELLO, "tools": [PAY]}
        with served(config) as (_, client):
            upstream.next(Script(message=CALL, finish="tool_calls"))
            held = client.chat(key=mine, tools=[PAY]).json["choices"][0]["message"]["quantgate"]["pending_approval"]
            decided = {"decision": "approve", "hash": held["hash"]}
            assert client("POST", f"/admin/approvals/{held['id']}", decided, key=admin).status == 200
            found: list[tuple[str, int]] = []

            def fetch(key: str, stream: bool) -> None:
                answer = client(
                    "POST", "/v1/chat/completions", {**body, "stream": stream}, key=key, x_quantgate_approval=held["id"]
                )
                found.append((key, answer.status))
                assert answer.status == 200 or b"amount" not in answer.raw

            threads = [
                threading.Thread(target=fetch, args=(key, n % 2 == 0))
                for n in range(8)
                for key in (mine, theirs, admin)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert Counter(status for _, status in found) == {200: 1, 403: 23}
            assert {key for key, status in found if status == 200} == {mine}


def test_a_stream_in_flight_ends_on_its_variant_while_others_go_elsewhere(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as variant:
        registry, url = registered(tmp_path, W4A16="pass")
        promote(registry, "laptop", "W4A16")
        with served(from_registry(tmp_path, url, {"BF16": base, "W4A16": variant})) as (_, client):
            variant.next(Script("slow", seconds=0.05, text="a long answer of the variant" * 3))
            link = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
            asked = {"model": "laptop", "messages": HELLO, "stream": True}
            link.request("POST", "/v1/chat/completions", json.dumps(asked), {"content-type": "application/json"})
            answer = link.getresponse()
            assert answer.headers["x-quantgate-variant-name"] == "W4A16"
            rollback(registry, "laptop", why="worse")
            until(lambda: client.chat().variant == "BF16")
            assert all(client.chat(session=f"s{n}").variant == "BF16" for n in range(5))
            rest = answer.read()
            assert rest.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"stop"' in rest
            link.close()
        registry.close()


def test_an_exchange_that_cannot_be_written_holds_up_no_other(url):
    journal = Journal(connect(url))
    journal.start()
    for one in (exchange(1), exchange(2, answer_tokens=2**70), exchange(3)):
        journal.put(one)
    journal.close()
    reader = Reader(connect(url))
    assert [one.id for _, one in reader.since()] == ["req_1", "req_3"]
    assert (journal.written, journal.dropped) == (2, 1)
    reader.close()


@pytest.mark.parametrize("usage", [{"prompt_tokens": 2**63, "completion_tokens": 2**64 - 1}, ["many"], "many"])
def test_an_upstreams_lies_to_a_shadow_are_not_there(usage):
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "words " * 100}
    told = {"stages": {"queue": "long", "x": 1, "decode": 1e300}}
    lie = raw(200, {"choices": [choice], "usage": usage, "quantgate": told, "timings": {"prompt_ms": 1e308}})
    purse = Purse(10_000)
    budget = Budget.model_validate({"tokens": "1k/day"})
    with ScriptedUpstream(always=lambda _body: lie) as upstream:
        copies, (found,) = copied([request()], upstream, ledger=purse, budget=budget)
    assert (copies.asked, copies.dropped, found.finish, found.stages) == (1, 0, "", {})
    assert (found.prompt_tokens or 0) < 2**31 and 0 <= purse.tokens <= 10_000
