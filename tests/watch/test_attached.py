"""A gateway with its watch: real servers, a real registry, and requests that come over the wire."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.postgres import Postgres
from tests.release.given import BASE, register
from tests.serve.opened import Client, config_of, until
from tests.watch.test_gauges import OPENED

from quantgate.errors import QuantgateError, UsageError
from quantgate.release.lifecycle import promote
from quantgate.release.store import Registry
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.serve.open import Around, open_gateway
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.watch.attached import attach, chosen, database_of
from quantgate.watch_config import WatchConfig

LIVE = {"baseline": "BF16", "canary": "W4A16", "share": 0.5}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
ONE_OFF = "[1, 2"  # no object, whatever is mended
SECRET_TEXT = "The swordfish is in the third drawer."


def config(folder: Path, base: ScriptedUpstream, canary: ScriptedUpstream, **keys: Any):
    given = {"live": LIVE} if "registry" not in keys else {}
    return config_of(folder, {"BF16": base, "W4A16": canary}, **given | keys)


def opened(config, **around: Any):
    return open_gateway(config, Around({}, attach=attach, **around))


def rows(gateway) -> list[Any]:
    reader = Reader(connect(gateway.parts.folder.exchanges))
    try:
        return [one for _, one in reader.since()]
    finally:
        reader.close()


def test_exchanges_get_marks_and_no_text_stays(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(config(tmp_path, base, canary))
        with Running(gateway) as running:
            client = Client(running.port)
            asked = [{"role": "user", "content": SECRET_TEXT}]
            for number in range(12):
                body = {"model": "laptop", "messages": asked, "stream": number % 2 == 0}
                assert client("POST", "/v1/chat/completions", body, x_session_id=f"s{number}").status == 200
        found = rows(gateway)
    assert len(found) == 12
    assert {one.side for one in found} == {"trial", "control"}
    for one in found:
        assert one.text is None
        assert one.marks and one.prompt_hash is not None
    assert len({one.prompt_hash for one in found}) == 1
    for file in (tmp_path / "data").iterdir():
        if file.is_file():
            assert b"swordfish" not in file.read_bytes(), file


def test_texts_are_kept_where_the_operator_asks_for_them(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(config(tmp_path, base, canary, exchanges={"keep_text": True}))
        with Running(gateway) as running:
            assert Client(running.port).chat().status == 200
        (found,) = rows(gateway)
    assert found.text["prompt"] == [{"role": "user", "content": "hello"}]
    assert found.marks


def test_without_a_watch_there_is_none(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(config(tmp_path, base, canary, watch={"enabled": False}))
        with Running(gateway) as running:
            client = Client(running.port)
            assert client.chat().status == 200
            for path in ("/watch/verdict", "/dashboard"):
                assert client("GET", path).status == 404
            assert b"quantgate_watch" not in client("GET", "/metrics").raw
            assert "/watch/verdict" not in client("GET", "/openapi.json").json["paths"]
    assert gateway.parts.attached is None
    assert gateway.settings.keep_text is False


def test_pages_figures_and_description_are_those_of_the_gateway(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(config(tmp_path, base, canary))
        with Running(gateway) as running:
            client = Client(running.port)
            for number in range(20):
                client.chat(session=f"s{number}")
            until(lambda: client("GET", "/watch/verdict").json.get("variant") == "W4A16")
            told = client("GET", "/watch/verdict").json
            assert (told["action"], told["control"], told["target"]) == ("hold", "BF16", "laptop")
            assert client("POST", "/watch/flagger", {}).status == 200
            assert client("GET", "/watch/points").json["trial"].startswith("sha256:")
            assert "<html" in client("GET", "/dashboard").raw.decode()
            assert "/watch/verdict" in client("GET", "/openapi.json").json["paths"]
            until(lambda: b"quantgate_watch_units" in client("GET", "/metrics").raw)
            page = client("GET", "/metrics").raw.decode()
        names = {one.name for family in text_string_to_metric_families(page) for one in family.samples}
        assert names >= OPENED
        for name in ("marks_read_total", "marks_dropped_total", "marks_failed_total", "behind_seconds", "up"):
            assert f"quantgate_watch_{name}" in names


def test_what_is_told_is_what_the_description_says(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(config(tmp_path, base, canary))
        with Running(gateway) as running:
            client = Client(running.port)
            described = client("GET", "/openapi.json").json
            client.chat()
            until(lambda: client("GET", "/watch/verdict").json["signals"])
            for path in ("/watch/verdict", "/watch/points", "/watch/alarms"):
                name = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
                whole = {**name, "components": described["components"]}
                jsonschema_rs.validate(whole, client("GET", path).json)
            refused = client("GET", "/watch/verdict?fail_on=x")
            assert str(refused.status) in described["paths"]["/watch/verdict"]["get"]["responses"]
            jsonschema_rs.validate(
                {"$ref": "#/components/schemas/Error", "components": described["components"]}, refused.json
            )


def released(tmp_path: Path) -> str:
    """A registry in which W4A16 is the canary of half of the sessions."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    registry = Registry.open(url, "ann", create=True)
    register(registry, "laptop", W4A16="pass")
    promote(registry, "laptop", "W4A16", canary=0.5)
    registry.close()
    return url


def test_a_canary_that_breaks_its_answers_goes_back_by_itself_and_controllers_hear_it(tmp_path):
    url = released(tmp_path)
    with ScriptedUpstream(lambda _body: "{}") as base, ScriptedUpstream(lambda _body: ONE_OFF) as canary:
        gateway = opened(config(tmp_path, base, canary, registry=url))
        with Running(gateway) as running:
            client = Client(running.port)
            number, end = 0, time.monotonic() + 60
            while gateway.parts.router.now.canary is not None:
                assert time.monotonic() < end, client("GET", "/watch/verdict").json
                answer = client.chat(session=f"s{number}", response_format=FORM)
                assert answer.status == 200, "the baseline is asked where the canary's answer fails"
                number += 1
            after = client.chat(session="s0", response_format=FORM)
            assert after.variant == BASE.name
            until(lambda: client("GET", "/watch/verdict").json["action"] == "rollback")
            told = client("GET", "/watch/verdict").json
            assert (told["pass"], told["variant"], told["signal"]) == (False, "W4A16", "validation_failure")
            assert client("POST", "/watch/flagger", {}).status == 412
            until(lambda: client("GET", "/watch/alarms").json["alarms"][0]["done"] == "moved")
            (alarm,) = client("GET", "/watch/alarms").json["alarms"]
            counted = b'quantgate_watch_alarms_total{action="rollback",target="laptop"} 1.0'
            until(lambda: counted in client("GET", "/metrics").raw)
    registry = Registry.open(url, "ann")
    (moved, *_) = registry.history("laptop")
    registry.close()
    assert (moved.what, alarm["verdict"]["action"]) == ("rollback", "rollback")


def test_the_journal_gets_every_exchange_that_waits_when_a_gateway_ends(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(config(tmp_path, base, canary))
        with Running(gateway) as running:
            client = Client(running.port)
            for number in range(50):
                client.chat(session=f"s{number}")
        assert len(rows(gateway)) == 50


def test_two_gateways_of_one_database_share_a_verdict_and_one_leads(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        given = [config(tmp_path / name, base, canary, exchanges={"url": url}) for name in ("one", "two")]
        one, two = (opened(each, secret="s" * 40) for each in given)
        with Running(one) as first, Running(two) as second:
            clients = [Client(first.port), Client(second.port)]
            for number in range(40):
                clients[number % 2].chat(session=f"s{number}")
            until(lambda: sum(each.parts.attached.watcher.leads for each in (one, two)) == 1)

            rests_on(40, *clients)


@pytest.mark.parametrize(
    ("watch", "sentence"),
    [
        ({"signals": {"refusl": {"off": True}}}, "refus"),
        ({"bounds": {"validation_failur": "2%"}}, "validation_failure"),
        ({"bounds": {"end_to_end": "2%"}}, "bounds: 'end_to_end' is no event that is counted here"),
        ({"database": "mysql://x/y"}, "watch: 'mysql' is not known"),
        ({"database": "postgresql://nobody@127.0.0.1:1/none"}, "check the address and that the database is up"),
    ],
)
def test_a_watch_that_cannot_be_is_refused_before_the_first_request(tmp_path, watch, sentence):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary, pytest.raises(QuantgateError) as problem:
        opened(config(tmp_path, base, canary, watch=watch))
    assert sentence in str(problem.value)


def test_signals_that_are_off_are_not_read():
    names = {one.name for one in chosen(WatchConfig())}
    without = {one.name for one in chosen(WatchConfig.model_validate({"signals": {"ttft": {"off": True}}}))}
    assert names - without == {"ttft"}
    with pytest.raises(UsageError):
        chosen(WatchConfig.model_validate({"signals": {"tttf": {}}}))


def test_evidence_lies_beside_the_exchanges_unless_told_otherwise(tmp_path):
    from quantgate.serve.folder import DataFolder

    folder = DataFolder(tmp_path, exchanges_url="postgresql://a@b/c")
    assert database_of(WatchConfig(), folder) == "postgresql://a@b/c"
    assert database_of(WatchConfig(database="sqlite:///w.db"), folder) == "sqlite:///w.db"


def test_keys_open_the_watch_by_their_scope(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        told = config(tmp_path, base, canary)
        gateway = opened(told)
        secrets = {scope: gateway.parts.book.new("a", frozenset({scope}))[1] for scope in ("use", "watch", "admin")}
        gateway.parts.close()
        gateway = opened(told)
        with Running(gateway) as running:
            client = Client(running.port)
            assert client("GET", "/watch/verdict").status == 401
            assert client("GET", "/watch/verdict", key=secrets["use"]).status == 403
            assert client("GET", "/watch/verdict", key=secrets["watch"]).status == 200
            assert client("GET", "/watch/verdict", key=secrets["admin"]).status == 200
            assert client.chat(key=secrets["watch"]).status == 403
            hook = {"metadata": {"token": secrets["watch"]}}
            assert client("POST", "/watch/flagger", hook).status == 200


def test_a_database_that_goes_away_stops_no_request_and_tells_nobody_to_roll_back(tmp_path, postgres: Postgres):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(config(tmp_path, base, canary, exchanges={"url": postgres.url()}))
        with Running(gateway) as running:
            client = Client(running.port)
            for number in range(10):
                client.chat(session=f"s{number}")
            rests_on(10, client)
            postgres.kill()
            try:
                assert [client.chat(session=f"t{number}").status for number in range(5)] == [200] * 5
                told = client("GET", "/watch/verdict").json
                assert (told["action"], told["pass"]) == ("hold", True)
                assert "the evidence cannot be read" in told["because"]
                assert client("POST", "/watch/flagger", {}).status == 200
                until(lambda: b'quantgate_watch_up{target="laptop"} 0.0' in client("GET", "/metrics").raw)
                until(lambda: any("the evidence cannot be read" in one for one in gateway.parts.warnings()))
            finally:
                postgres.start()
            rests_on(15, client)
            until(lambda: b'quantgate_watch_up{target="laptop"} 1.0' in client("GET", "/metrics").raw)
            until(lambda: not gateway.parts.warnings())


def rests_on(sessions: int, *clients: Client) -> None:
    """Wait until verdicts rest on so many sessions, while one more goes on asking."""
    until(lambda: clients[0].chat(session="on").status == 200 and all(counted(one) > sessions for one in clients))


def counted(client: Client) -> int:
    """Sessions of both sides that a verdict rests on."""
    told = client("GET", "/watch/verdict").json["signals"]
    return max((one["trial"]["units"] + one["control"]["units"] for one in told), default=0)


def test_copies_are_held_against_the_answers_that_left(tmp_path):
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    with ScriptedUpstream(lambda _body: "It is five.") as base, ScriptedUpstream(lambda _body: "   ") as canary:
        copied = {"variant": "W4A16", "share": 1.0}
        gateway = opened(config(tmp_path, base, canary, live={"baseline": "BF16"}, shadow=copied))
        shadow = gateway.parts.shadow
        with Running(gateway) as running:
            client = Client(running.port)
            for number in range(6):
                more: dict[str, Any] = {"tools": [tool]} if number % 2 else {}
                assert client.chat(session=f"s{number}", stream=number < 3, **more).status == 200
                until(lambda wanted=number + 1: shadow.asked == wanted and not shadow._tasks)
        found = rows(gateway)
    copies = [one for one in found if one.shadow]
    assert len(copies) == 6
    assert {one.marks.get("shadow_disagreement") for one in copies} == {1.0}
    assert {(one.side, one.against, one.artifact) for one in copies} == {("", "sha256:BF16", "sha256:W4A16")}
    assert not any("shadow_disagreement" in one.marks for one in found if not one.shadow)
    assert not any(one.text for one in found)


def test_a_copy_that_says_the_same_is_no_evidence(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        gateway = opened(
            config(tmp_path, base, canary, live={"baseline": "BF16"}, shadow={"variant": "W4A16", "share": 1.0})
        )
        with Running(gateway) as running:
            Client(running.port).chat()
            until(lambda: gateway.parts.shadow.asked and not gateway.parts.shadow._tasks)
        (copy,) = [one for one in rows(gateway) if one.shadow]
    assert "shadow_disagreement" not in copy.marks
