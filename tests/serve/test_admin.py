"""Operators' routes: only for their keys, and each does what the command line does."""

from __future__ import annotations

import pytest
from tests.serve.opened import config_of, served, until

from quantgate.serve.open import Around, open_gateway
from quantgate.serve.scripted import Script, ScriptedUpstream

PAY = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}}}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"amount": 500}'}}],
}
ROUTE = {
    "name": "pay",
    "when": {"tool": "pay"},
    "stream": "buffer",
    "confirm": {"rules": [{"tool": "pay", "when": ["/amount > 100"]}]},
}


@pytest.fixture
def upstream():
    with ScriptedUpstream() as made:
        yield made


@pytest.fixture
def running(tmp_path, upstream):
    config = config_of(tmp_path, {"BF16": upstream}, live={"baseline": "BF16"}, routes=[ROUTE])
    before = open_gateway(config, Around({}))
    _, admin = before.parts.book.new("ops", frozenset({"admin"}))
    _, user = before.parts.book.new("app")
    before.parts.close()
    with served(config) as (gateway, client):
        yield gateway, client, admin, user


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "live"), ("GET", "releases"), ("POST", "ramp"), ("POST", "rollback"), ("POST", "hold"), ("GET", "keys"),
        ("POST", "keys"), ("DELETE", "keys/k1"), ("POST", "keys/k1/rotate"), ("GET", "approvals"),
        ("POST", "approvals/a1"), ("POST", "drain"), ("GET", "nothing"), ("PUT", "live"),
    ],
)  # fmt: skip
def test_nobody_else_gets_in(running, method, path):
    _, client, _, user = running
    body: dict[str, str] | None = {} if method == "POST" else None
    assert client(method, f"/admin/{path}", body).status == 401
    assert client(method, f"/admin/{path}", body, key="qg_k1_wrong").status == 401
    assert client(method, f"/admin/{path}", body, key=user).status == 403


def test_unknown_paths_and_methods_are_told(running):
    _, client, admin, _ = running
    assert client("GET", "/admin/nothing", key=admin).status == 404
    wrong = client("PUT", "/admin/live", key=admin)
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")


def test_keys_are_made_listed_replaced_and_revoked_over_http(running):
    _, client, admin, _ = running
    made = client("POST", "/admin/keys", {"name": "new", "tokens": "100k/day"}, key=admin).json
    until(lambda: client.chat(key=made["secret"]).status == 200)
    listed = client("GET", "/admin/keys", key=admin)
    assert made["secret"] not in listed.raw.decode()
    (own,) = [one for one in listed.json["keys"] if one["id"] == made["id"]]
    assert own["budget"]["tokens"] == "100000/day"
    again = client("POST", f"/admin/keys/{made['id']}/rotate", {}, key=admin).json
    until(lambda: client.chat(key=again["secret"]).status == 200)
    until(lambda: client.chat(key=made["secret"]).status == 401)
    assert client("DELETE", f"/admin/keys/{again['id']}", key=admin).json["ends_at"] is not None
    until(lambda: client.chat(key=again["secret"]).status == 401)


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("keys", {"name": "x", "tokens": "many"}, "expected such as 1M/day"),
        ("keys", {"nam": "x"}, "did you mean 'name'"),
        ("keys/k000/rotate", {}, "no key has the id 'k000'"),
        ("rollback", {}, "'why': is missing"),
        ("approvals/a1", {"decision": "approve"}, "hash: is missing"),
        ("approvals/a1", {"decision": "perhaps"}, "decision"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(running, path, body, sentence):
    _, client, admin, _ = running
    answer = client("POST", f"/admin/{path}", body, key=admin)
    assert answer.status == 400
    assert sentence in answer.json["error"]["message"]


def test_without_a_registry_nothing_is_moved(running):
    _, client, admin, _ = running
    answer = client("POST", "/admin/rollback", {"why": "x"}, key=admin)
    assert (answer.status, answer.json["error"]["code"]) == (409, "no_registry")


def test_a_held_call_is_read_approved_and_fetched_once(running, upstream):
    _, client, admin, user = running
    upstream.next(Script(message=CALL, finish="tool_calls"))
    held = client.chat(key=user, tools=[PAY]).json["choices"][0]
    assert not held["message"].get("tool_calls")
    id = held["message"]["quantgate"]["pending_approval"]["id"]
    (waiting,) = client("GET", "/admin/approvals", key=admin).json["approvals"]
    assert (waiting["id"], waiting["calls"][0]["arguments"]) == (id, '{"amount": 500}')
    early = client("POST", "/v1/chat/completions", _asked(), key=user, x_quantgate_approval=id)
    assert early.status in (403, 409)
    wrong = client("POST", f"/admin/approvals/{id}", {"decision": "approve", "hash": "sha256:other"}, key=admin)
    assert wrong.status >= 400
    done = client("POST", f"/admin/approvals/{id}", {"decision": "approve", "hash": waiting["hash"]}, key=admin)
    assert (done.status, done.json["status"]) == (200, "approved")
    fetched = client("POST", "/v1/chat/completions", _asked(), key=user, x_quantgate_approval=id)
    assert fetched.json["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"amount": 500}'
    again = client("POST", "/v1/chat/completions", _asked(), key=user, x_quantgate_approval=id)
    assert again.status in (403, 409)
    assert client("GET", "/admin/approvals", key=admin).json["approvals"] == []


def test_a_denied_call_never_leaves(running, upstream):
    _, client, admin, user = running
    upstream.next(Script(message=CALL, finish="tool_calls"))
    held = client.chat(key=user, tools=[PAY]).json["choices"][0]
    id = held["message"]["quantgate"]["pending_approval"]["id"]
    assert client("POST", f"/admin/approvals/{id}", {"decision": "deny"}, key=admin).json["status"] == "denied"
    assert client("POST", "/v1/chat/completions", _asked(), key=user, x_quantgate_approval=id).status in (403, 409)


def test_draining_is_told_and_taken_back(running):
    _, client, admin, user = running
    assert client("GET", "/ready").status == 200
    assert client("POST", "/admin/drain", {}, key=admin).json == {"draining": True}
    assert client("GET", "/ready").status == 503
    assert client.chat(key=user).status == 200
    client("POST", "/admin/drain", {"on": False}, key=admin)
    assert client("GET", "/ready").status == 200


def test_live_tells_what_is_served_and_proven(running):
    _, client, admin, _ = running
    told = client("GET", "/admin/live", key=admin).json
    assert (told["live"]["baseline"]["name"], told["up"], told["warnings"]) == ("BF16", ["BF16"], [])
    assert any(one["guard"].endswith("confirm pay") for one in told["proofs"])


def test_admin_routes_can_be_left_out(tmp_path, upstream):
    config = config_of(tmp_path, {"BF16": upstream}, live={"baseline": "BF16"}, admin=False)
    with served(config) as (_, client):
        assert client("GET", "/admin/live").status == 404


def _asked():
    return {"model": "laptop", "messages": [{"role": "user", "content": "hello"}], "tools": [PAY]}
