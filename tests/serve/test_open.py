"""A gateway out of its configuration, with real connections at both ends: routed, budgeted, recorded, swapped."""

from __future__ import annotations

import pytest
from tests.release.given import register, variant_of
from tests.serve.opened import config_of, served, until

from quantgate.errors import GuardDead, QuantgateError, UsageError
from quantgate.release import Variant
from quantgate.release.lifecycle import promote, ramp, rollback
from quantgate.release.store import Registry
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.serve.open import Around, open_gateway
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve_config import Budget, ServeConfig

LIVE = {"baseline": "BF16", "canary": "W4A16", "share": 0.5}


@pytest.fixture
def pair():
    with ScriptedUpstream() as one, ScriptedUpstream() as other:
        yield {"BF16": one, "W4A16": other}


def exchanges(gateway):
    reader = Reader(connect(gateway.parts.folder.exchanges))
    found = [one for _, one in reader.since()]
    reader.close()
    return found


def test_sessions_are_sticky_and_every_request_leaves_its_exchange(tmp_path, pair):
    with served(config_of(tmp_path, pair, live=LIVE)) as (gateway, client):
        first = {f"s{n}": client.chat(session=f"s{n}").variant for n in range(20)}
        again = {name: client.chat(session=name).variant for name in first}
    assert first == again
    assert set(first.values()) == {"BF16", "W4A16"}
    kept = exchanges(gateway)
    assert len(kept) == 40
    assert {(one.variant, one.cohort, one.share) for one in kept} == {
        ("BF16", "stable", 0.5),
        ("W4A16", "canary", 0.5),
    }
    assert {one.artifact for one in kept} == {"sha256:BF16", "sha256:W4A16"}
    assert all(one.told_session and one.text is None for one in kept)


def test_a_rule_places_requests_and_a_name_pins_only_for_those_who_may(tmp_path, pair):
    rules = [{"name": "tools", "when": {"structured": True}, "variant": "canary"}]
    with served(config_of(tmp_path, pair, live={"baseline": "BF16", "canary": "W4A16"}, rules=rules)) as (_, client):
        assert client.chat().variant == "BF16"
        refused = client.chat(model="quantgate/W4A16")
        assert (refused.status, refused.json["error"]["code"]) == (403, "variant_not_allowed")
        assert client.chat(model="nothing").status == 404
        listed = client("GET", "/v1/models").json["data"]
        assert [one["id"] for one in listed] == ["laptop", "quantgate/BF16", "quantgate/W4A16"]


def test_keys_budgets_and_admin_scopes_hold_end_to_end(tmp_path, pair):
    config = config_of(tmp_path, pair, live={"baseline": "BF16"}, limits={"answer_tokens": 16})
    gateway = open_gateway(config, Around({}))
    _, small = gateway.parts.book.new("small", budget=Budget.model_validate({"requests": "2/day"}))
    _, admin = gateway.parts.book.new("ops", frozenset({"admin"}))
    gateway.parts.close()
    with served(config) as (gateway, client):
        assert client.chat().status == 401
        assert client.chat(key="qg_k1_wrong").status == 401
        assert [client.chat(key=small).status for _ in range(2)] == [200, 200]
        over = client.chat(key=small)
        assert (over.status, over.headers["x-should-retry"]) == (429, "false")
        assert "2 requests a day" in over.json["error"]["message"]
        assert client("GET", "/admin/live", key=small).status == 403
        assert client("GET", "/admin/live").status == 401
        assert client("GET", "/admin/live", key=admin).json["live"]["target"] == "laptop"
    assert {one.key for one in exchanges(gateway)} == {small.split("_")[1]}


def test_the_same_prompt_is_charged_as_the_upstream_counts_it(tmp_path, pair):
    config = config_of(tmp_path, pair, live={"baseline": "BF16"})
    gateway = open_gateway(config, Around({}))
    row, secret = gateway.parts.book.new("team", budget=Budget.model_validate({"tokens": "100k/day"}))
    gateway.parts.close()
    with served(config) as (gateway, client):
        used = sum(client.chat(key=secret).json["usage"]["total_tokens"] for _ in range(5))
        assert client.chat(key=secret, stream=True).status == 200
    (streamed,) = [one for one in exchanges(gateway) if one.stream]
    used += (streamed.prompt_tokens or 0) + (streamed.answer_tokens or 0)
    book = open_gateway(config, Around({})).parts
    (charged,) = [amount for (account, _, _), (amount, _) in book.book.spent().items() if account == row.account]
    book.close()
    assert charged == used


def registered(tmp_path, **verdicts: str) -> tuple[Registry, str]:
    url = f"sqlite:///{tmp_path / 'quantgate.db'}"
    registry = Registry.open(url, "ada", create=True)
    register(registry, "laptop", **verdicts)
    return registry, url


def from_registry(tmp_path, url: str, pair) -> ServeConfig:
    return config_of(tmp_path, pair, registry=url)


def test_promotion_ramp_and_rollback_reach_a_running_gateway(tmp_path, pair):
    registry, url = registered(tmp_path, W4A16="pass")
    with served(from_registry(tmp_path, url, pair)) as (gateway, client):
        assert {client.chat().variant for _ in range(5)} == {"BF16"}
        promote(registry, "laptop", "W4A16", canary=0.5)
        until(lambda: gateway.parts.router.now.canary is not None)
        found = {n: client.chat(session=f"s{n}").variant for n in range(20)}
        assert set(found.values()) == {"BF16", "W4A16"}
        ramp(registry, "laptop", 0.9)
        until(lambda: gateway.parts.router.now.share == 0.9)
        later = {n: client.chat(session=f"s{n}").variant for n in range(20)}
        assert all(later[n] == "W4A16" for n in found if found[n] == "W4A16")
        rollback(registry, "laptop", why="it answers worse")
        until(lambda: gateway.parts.router.now.canary is None)
        assert {client.chat(session=f"s{n}").variant for n in range(20)} == {"BF16"}
    registry.close()


def test_operators_move_releases_over_http(tmp_path, pair):
    registry, url = registered(tmp_path, W4A16="pass")
    promote(registry, "laptop", "W4A16", canary=0.1)
    with served(from_registry(tmp_path, url, pair)) as (gateway, client):
        _, admin = gateway.parts.book.new("ops", frozenset({"admin"}))
        until(lambda: client("GET", "/admin/live", key=admin).status == 200)
        done = client("POST", "/admin/ramp", {"share": 0.6, "why": "quiet night"}, key=admin)
        assert (done.status, done.json["live"]["share"]) == (200, 0.6)
        assert gateway.parts.router.now.share == 0.6
        lower = client("POST", "/admin/ramp", {"share": 0.2}, key=admin)
        assert (lower.status, lower.json["error"]["code"]) == (409, "not_moved")
        assert client("POST", "/admin/rollback", {}, key=admin).status == 400
        assert client("POST", "/admin/hold", {"why": "a look"}, key=admin).json["live"]["frozen"] is True
        back = client("POST", "/admin/rollback", {"why": "worse"}, key=admin)
        assert (back.status, back.json["live"]["canary"]) == (200, None)
        assert gateway.parts.router.now.canary is None
        moves = client("GET", "/admin/releases", key=admin).json["moves"]
        assert moves[0]["who"].startswith("key k")
    registry.close()


def test_a_gateway_starts_on_its_last_release_when_the_registry_is_gone(tmp_path, pair):
    registry, url = registered(tmp_path, W4A16="pass")
    promote(registry, "laptop", "W4A16")
    with served(from_registry(tmp_path, url, pair)) as (_, client):
        assert client.chat().variant == "W4A16"
    registry.close()
    (tmp_path / "quantgate.db").rename(tmp_path / "away.db")
    with pytest.raises(QuantgateError):
        open_gateway(from_registry(tmp_path / "elsewhere", url, pair), Around({}))
    with served(from_registry(tmp_path, url, pair)) as (gateway, client):
        assert client.chat().variant == "W4A16"
        assert any("cannot be asked" in one for one in gateway.parts.warnings())
        (tmp_path / "away.db").rename(tmp_path / "quantgate.db")
        until(lambda: not gateway.parts.warnings())


def test_a_variant_that_cannot_be_opened_gets_no_request(tmp_path, pair):
    registry, url = registered(tmp_path, W4A16="pass", W8A8="pass")
    with served(from_registry(tmp_path, url, pair)) as (gateway, client):
        promote(registry, "laptop", "W8A8", canary=1.0)
        until(lambda: "W8A8" in gateway.parts.fleet.failed)
        assert {client.chat(session=f"s{n}").variant for n in range(10)} == {"BF16"}
        assert any("W8A8: nobody says where its files lie" in one for one in gateway.parts.warnings())
    registry.close()


def test_copies_go_to_the_shadow_and_bill_nobody(tmp_path, pair):
    shadow = {"variant": "W4A16", "share": 1.0, "queue": 100}
    config = config_of(tmp_path, pair, live={"baseline": "BF16"}, shadow=shadow)
    with served(config) as (gateway, client):
        assert {client.chat(session=f"s{n}").variant for n in range(10)} == {"BF16"}
        until(lambda: b"quantgate_shadow_asked 10.0" in client("GET", "/metrics").raw)
        until(lambda: b"quantgate_exchanges_written 20.0" in client("GET", "/metrics").raw)
    kept = exchanges(gateway)
    copies = [one for one in kept if one.shadow]
    assert len(copies) == len(kept) / 2 == 10
    assert {(one.variant, one.cohort, one.rule, one.step) for one in copies} == {
        ("W4A16", "pinned", "shadow", "passed")
    }
    assert {one.id for one in copies} == {one.id for one in kept if not one.shadow}


def test_others_may_not_reach_a_gateway_without_keys(tmp_path, pair):
    config = config_of(tmp_path, pair, live={"baseline": "BF16"}, host="0.0.0.0")
    with pytest.raises(UsageError, match=r"host 0\.0\.0\.0: others can reach it, and there is no key yet"):
        open_gateway(config, Around({}))


@pytest.mark.parametrize(
    ("keys", "error", "sentence"),
    [
        ({"rules": [{"name": "r", "variant": "W8"}]}, UsageError, "rules.r: no variant 'W8'"),
        ({"routes": [{"name": "r", "validators": {"secret": {}}}]}, UsageError, "did you mean 'secrets'"),
        ({"shadow": {"variant": "W8"}}, UsageError, "shadow: no variant 'W8'"),
        ({"database": "mysql://x"}, UsageError, "'mysql' is not known"),
        ({"exchanges": {"url": "postgresql://nobody@127.0.0.1:1/x"}}, QuantgateError, "exchanges: "),
        (
            {"routes": [{"name": "pay", "stream": "passthrough", "confirm": {"rules": [{"tool": "pay"}]}}]},
            UsageError,
            "routes.pay",
        ),
    ],
)
def test_a_configuration_that_disables_a_guard_or_names_nobody_is_refused(tmp_path, pair, keys, error, sentence):
    assert issubclass(GuardDead, QuantgateError)
    with pytest.raises(error) as told:
        open_gateway(config_of(tmp_path, pair, live={"baseline": "BF16"}, **keys), Around({}))
    assert sentence in str(told.value)


def test_an_artifact_with_a_flipped_bit_is_not_served(tmp_path, pair):
    """The registry names a digest; the folder that it points to holds other bytes."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    registry, url = registered(tmp_path, W4A16="pass")
    broken = Variant.model_validate({**dict(variant_of("W4A16")), "location": str(folder)})
    now = registry.live("laptop")
    moved = now.model_copy(update={"stable": broken, "revision": now.revision + 1})
    registry.move(now, moved, "promote")
    only = {"BF16": pair["BF16"]}
    gateway = open_gateway(from_registry(tmp_path, url, only), Around({}))
    with pytest.raises(QuantgateError, match="manifest"):
        gateway.parts.fleet.open(broken)
    gateway.parts.close()
    registry.close()
