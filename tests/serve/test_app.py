"""The gateway's whole answers, its refusals, and what it tells of itself; real HTTP on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.serve.gateways import (
    BASELINE,
    CANARY,
    Fixed,
    asked,
    call,
    chat,
    gateway_of,
    kept,
    line_with,
    streaming,
    until,
)

from quantgate.serve import Caller, Choice, LedgerClosed, OverBudget, Request, Reservation
from quantgate.serve.refusals import Refused
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import Limits, RoutePolicy

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
STAGES = ("parse", "context", "cache", "queue", "prefill", "decode", "validate", "stream", "total", "overhead")


def test_an_answer_leaves_as_the_upstream_wrote_it_and_says_who_gave_it() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        answer = chat(running, asked("stressed", temperature=0.5, top_k=7), x_session_id="s1")
        assert answer.text == "desserts"
        assert answer.raw.startswith(b'{"id":"chatcmpl-scripted","object":"chat.completion"')
        assert answer.headers["x-quantgate-variant"] == CANARY.digest
        assert answer.headers["x-quantgate-cohort"] == "canary"
        assert answer.headers["x-quantgate-revision"] == "3"
        for stage in STAGES:
            assert f"{stage};" in answer.headers["server-timing"]
        sent = variant.asked[0]
        assert (sent["model"], sent["temperature"], sent["top_k"], sent["stream"]) == ("scripted", 0.5, 7, False)
        exchange = until(lambda: kept(running.gateway))[0]
        assert (exchange.id, exchange.session, exchange.told_session) == (answer.headers["x-request-id"], "s1", True)
        assert (exchange.status, exchange.step, exchange.finish, exchange.revision) == (200, "passed", "stop", 3)
        assert exchange.total_s >= exchange.overhead_s > 0 and exchange.answer_tokens


@pytest.mark.parametrize("keep", [False, True])
def test_nothing_of_prompt_or_answer_is_kept_unless_the_operator_asked(keep: bool) -> None:
    with (
        ScriptedUpstream(lambda _body: "the-answer") as variant,
        Running(gateway_of(variant, keep_text=keep)) as running,
    ):
        for stream in (False, True):
            chat(running, asked("the-prompt", stream=stream))
        found = until(lambda: len(kept(running.gateway)) == 2 and kept(running.gateway))
        for record in (one.model_dump_json() for one in found):
            assert ("the-prompt" in record) is keep and ("the-answer" in record) is keep


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_json", None),
        (b'{"model": "\xff"}', 400, "invalid_json", None),
        (b"[]", 400, "invalid_json", None),
        (b"", 400, "invalid_json", None),
        (b"[" * 2000 + b"]" * 2000, 400, "invalid_json", None),
        ({"model": "demo", "messages": [{"role": "user", "content": "a"}], "x": json.loads("[" * 80 + "]" * 80)},
         400, "too_deep", None),
        ({"messages": []}, 400, "missing_required_parameter", "model"),
        ({"model": "demo"}, 400, "missing_required_parameter", "messages"),
        ({"model": "demo", "messages": []}, 400, "invalid_value", "messages"),
        ({"model": None, "messages": []}, 400, "invalid_value", "model"),
        (asked(stream="yes"), 400, "invalid_value", "stream"),
        (asked(n=0), 400, "invalid_value", "n"),
        (asked(temperature=3), 400, "invalid_value", "temperature"),
        (asked(temperature=True), 400, "invalid_value", "temperature"),
        (asked(max_tokens=0), 400, "invalid_value", "max_tokens"),
        (asked(stop=[1]), 400, "invalid_value", "stop"),
        (asked(stream_options={}), 400, "invalid_value", "stream_options"),
        ({"model": "demo", "messages": ["hi"]}, 400, "invalid_value", "messages[0].role"),
        ({"model": "demo", "messages": [{"role": "user"}]}, 400, "invalid_value", "messages[0].content"),
        ({"model": "demo", "messages": [{"role": "user", "content": [1]}]}, 400, "invalid_value",
         "messages[0].content[0]"),
        (asked(response_format={"type": "xml"}), 400, "invalid_schema", "response_format.type"),
    ],
)  # fmt: skip
def test_a_bad_request_names_what_is_wrong_and_is_asked_of_nobody(
    body: Any, status: int, code: str, param: str | None
) -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        answer = call(running, "/v1/chat/completions", body)
        assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
        assert answer.headers["x-should-retry"] == "false" and answer.headers["x-request-id"].startswith("req_")
        assert len(answer.error["message"]) < 300 and variant.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/nowhere", 404, None),
        ("POST", "/", 404, None),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("PUT", "/v1/responses", 405, "POST"),
        ("POST", "/health", 405, "GET, HEAD"),
        ("DELETE", "/v1/models/demo", 405, "GET, HEAD"),
        ("GET", "/v1/models/other", 404, None),
        ("GET", "/openapi.json", 404, None),
    ],
)
def test_what_is_not_there_is_an_error_object(method: str, path: str, status: int, allow: str | None) -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        answer = call(running, path, method=method)
        assert (answer.status, answer.headers.get("allow")) == (status, allow)
        assert set(answer.error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "headers", [{"content-type": "text/plain"}, {"content-encoding": "gzip"}, {"content-type": ""}]
)
def test_another_type_of_content_is_refused(headers: Mapping[str, str]) -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        answer = call(running, "/v1/chat/completions", json.dumps(asked()).encode(), headers=headers)
        assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


def test_a_body_beyond_the_limit_is_refused_at_its_announcement_or_when_it_is_reached() -> None:
    limits = Limits(body_bytes=1000, grace_s=5)
    with ScriptedUpstream() as variant, Running(gateway_of(variant, limits=limits)) as running:
        assert call(running, "/v1/chat/completions", asked("x" * 2000)).status == 413
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as line:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            line.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
            line.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 413")
        assert variant.asked == []


@dataclass
class OneKey:
    def find(self, secret: str) -> Caller | None:
        return {"qg_a": Caller("a", budget="a"), "qg_none": Caller("n", frozenset())}.get(secret)


def test_a_key_is_asked_for_where_keys_are_used() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant, keys=OneKey())) as running:
        for authorization in ("", "Bearer wrong", "Basic qg_a"):
            answer = chat(running, asked(), **({"authorization": authorization} if authorization else {}))
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer" and "wrong" not in answer.raw.decode()
        assert chat(running, asked(), authorization="Bearer qg_none").error["code"] == "scope_missing"
        assert chat(running, asked(), authorization="Bearer qg_a").status == 200
        assert call(running, "/v1/models").status == 401
        assert call(running, "/health").status == 200
        assert until(lambda: kept(running.gateway))[0].key == "a"


@dataclass
class Books:
    """A ledger that writes down what it is asked."""

    error: Exception | None = None
    settled: list[tuple[int, int]] = field(default_factory=list)
    priced_as: list[str] = field(default_factory=list)
    reserved: list[tuple[int, int]] = field(default_factory=list)

    async def admit(self, caller: Caller, prompt: int, answer: int, variant: str = "") -> Reservation | None:
        if self.error is not None:
            raise self.error
        self.reserved.append((prompt, answer))
        return Reservation(caller.key, prompt + answer, 0.0, len(self.reserved))

    def settle(self, reservation: Reservation, prompt: int, answer: int, variant: str = "") -> None:
        self.settled.append((prompt, answer))
        self.priced_as.append(variant)


def test_a_budget_is_reserved_for_the_most_and_settled_with_what_was_used() -> None:
    books = Books()
    with ScriptedUpstream() as variant, Running(gateway_of(variant, ledger=books)) as running:
        answer = chat(running, asked())
        assert variant.asked[0]["max_tokens"] == 1024 == books.reserved[0][1]
        chat(running, asked(max_tokens=7, n=2))
        assert "max_completion_tokens" not in variant.asked[1] and books.reserved[1][1] == 14
        chat(running, asked(stream=True))
        variant.next(Script("no_usage"))
        chat(running, asked(stream=True))
        variant.next(Script("status"))
        chat(running, asked())
        until(lambda: len(books.settled) == 5)
        usage = answer.body["usage"]
        told = (usage["prompt_tokens"], usage["completion_tokens"])
        assert books.settled[0] == books.settled[2] == told
        assert 0 < books.settled[3][0] <= books.reserved[3][0] and books.settled[3][1] > 0
        assert books.settled[4] == (0, 0)
        assert all(used[0] <= most[0] for used, most in zip(books.settled, books.reserved, strict=True))


def test_what_was_reserved_is_given_back_when_nobody_is_asked() -> None:
    books = Books()
    with ScriptedUpstream() as variant, Running(gateway_of(variant, ledger=books)) as running:
        answer = chat(running, asked(), **{"x-quantgate-approval": "p1"})
        assert answer.error["code"] == "approval_refused" and variant.asked == []
        assert len(books.reserved) == 1 and books.settled == [(0, 0)]


def test_an_answer_is_paid_at_the_price_of_who_gave_it() -> None:
    books = Books()
    with (
        ScriptedUpstream() as variant,
        ScriptedUpstream() as baseline,
        Running(gateway_of(variant, baseline, ledger=books)) as running,
    ):
        chat(running, asked())
        variant.next(Script("status"))
        assert chat(running, asked()).status == 200
        until(lambda: len(books.settled) == 2)
        assert books.priced_as == ["W4A16", "BF16"]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (OverBudget("spent", retry_after_s=12.5), 429, "budget_exceeded", "13"),
        (OverBudget("spent for good"), 429, "budget_exceeded", None),
        (LedgerClosed("the database is gone"), 503, "ledger_unreachable", None),
    ],
)
def test_what_cannot_be_paid_is_refused_and_forbids_retries(
    error: Exception, status: int, code: str, retry: str | None
) -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant, ledger=Books(error))) as running:
        answer = chat(running, asked())
        assert (answer.status, answer.error["code"], answer.headers.get("retry-after")) == (status, code, retry)
        assert answer.headers["x-should-retry"] == "false" and variant.asked == []
        assert f'quantgate_budget_refusals_total{{code="{code}"}} 1.0' in call(running, "/metrics").raw.decode()


class Nobody(Fixed):
    def choose(self, request: Request) -> Choice:
        raise Refused(404, "model_not_found", "no such model", param="model")

    def arms(self) -> Sequence[Any]:  # type: ignore[override]
        return [CANARY, BASELINE]

    def trouble(self) -> str | None:
        return "the registry never answered"


def test_a_router_may_refuse_and_readiness_tells_every_reason() -> None:
    with ScriptedUpstream() as variant:
        router = Nobody(Choice(CANARY, "canary", 0.5, 3))
        gateway = gateway_of(variant, router=router, dead=lambda: "the ledger is closed", proven=lambda: False)
        with Running(gateway) as running:
            assert chat(running, asked()).error["param"] == "model"
            answer = call(running, "/ready")
            assert answer.status == 503 and not answer.body["ready"]
            reasons = " ".join(answer.body["reasons"])
            for word in ("registry", "ledger", "proven", "BF16"):
                assert word in reasons


def test_ready_names_each_arm_and_what_its_upstream_serves() -> None:
    with ScriptedUpstream() as variant, ScriptedUpstream() as baseline:
        with Running(gateway_of(variant, baseline)) as running:
            arms = call(running, "/ready").body["arms"]
            assert [(arm["name"], arm["digest"], arm["serves"]) for arm in arms] == [
                (CANARY.name, CANARY.digest, "scripted"),
                (BASELINE.name, BASELINE.digest, "scripted"),
            ]
            baseline.stop()
            assert call(running, "/ready").status == 503
            assert call(running, "/health").body == {"status": "ok"}
        assert variant.asked == []


def test_models_are_listed_and_found_by_name() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant, openapi=lambda: {"openapi": "3.1.0"})) as running:
        assert [one["id"] for one in call(running, "/v1/models").body["data"]] == ["demo"]
        assert call(running, "/v1/models/demo").body["object"] == "model"
        assert call(running, "/openapi.json").body == {"openapi": "3.1.0"}
        assert call(running, "/health", method="HEAD").raw == b""


def test_requests_beyond_the_limit_are_shed_at_once_and_told_when_to_come_back() -> None:
    limits = Limits(in_flight=1, grace_s=5)
    with (
        ScriptedUpstream(always=lambda body: Script("stall")) as variant,
        Running(gateway_of(variant, limits=limits)) as running,
    ):
        line = socket.create_connection(("127.0.0.1", running.port))
        data = json.dumps(asked()).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        line.sendall(head + b"content-length: %d\r\n\r\n%b" % (len(data), data))
        assert variant.wait(lambda upstream: len(upstream.asked) == 1)
        answer = chat(running, asked())
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1" and answer.headers["retry-after-ms"] == "1000"
        line.close()
        until(lambda: running.gateway.in_flight == 0)


def test_a_queue_that_would_break_its_budget_is_not_joined() -> None:
    limits = Limits(per_arm=1, waiting=0, grace_s=5)
    with (
        ScriptedUpstream(always=lambda body: Script("stall") if "first" in str(body) else None) as variant,
        Running(gateway_of(variant, limits=limits)) as running,
    ):
        line = socket.create_connection(("127.0.0.1", running.port))
        data = json.dumps(asked("first")).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        line.sendall(head + b"content-length: %d\r\n\r\n%b" % (len(data), data))
        assert variant.wait(lambda upstream: len(upstream.asked) == 1)
        answer = chat(running, asked())
        assert (answer.status, answer.error["code"]) == (503, "overloaded") and "retry-after" in answer.headers
        line.close()
        until(lambda: running.gateway.in_flight == 0)
        assert chat(running, asked()).status == 200


def test_at_the_end_readiness_goes_first_and_answers_in_flight_are_finished() -> None:
    script = Script("slow", seconds=0.4, pieces=["one ", "two ", "three"], text="one two three")
    with ScriptedUpstream(always=lambda _body: script) as variant:
        running = Running(gateway_of(variant), notice_s=0.5).__enter__()
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(chat(running, asked(stream=True))))
        asking.start()
        assert variant.wait(lambda upstream: len(upstream.asked) == 1)
        ending = threading.Thread(target=running.stop)
        ending.start()
        until(lambda: running.gateway.draining)
        ready = call(running, "/ready")
        assert ready.status == 503 and ready.body["reasons"] == ["the gateway is about to end"]
        ending.join()
        asking.join()
        assert answers[0].done and answers[0].text == "one two three"
        with pytest.raises(OSError):
            chat(running, asked())


def test_what_is_not_done_within_the_time_of_grace_is_cut() -> None:
    with ScriptedUpstream(always=lambda _body: Script("stall_midway", after=3, text="and then")) as variant:
        running = Running(gateway_of(variant, limits=Limits(grace_s=1.0))).__enter__()
        with streaming(running, asked()) as response:
            line_with(response, b'"content":"and')
            running.stop()
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                response.read()
        assert variant.wait(lambda upstream: len(upstream.aborts) == 1)
        assert until(lambda: kept(running.gateway))[0].answered_by == ""


class Broken:
    def put(self, exchange: Any) -> None:
        raise RuntimeError("no")


def test_a_sink_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant, sink=Broken())) as running:
        assert chat(running, asked()).status == 200
        until(lambda: "quantgate_sink_errors_total 1.0" in call(running, "/metrics").raw.decode())


def test_an_invalid_answer_is_mended_by_repair_by_another_turn_and_by_the_baseline() -> None:
    structured = asked(response_format=FORMAT)
    with (
        ScriptedUpstream() as variant,
        ScriptedUpstream(lambda _body: '{"n": 9}') as baseline,
        Running(gateway_of(variant, baseline)) as running,
    ):
        variant.next(Script(text='{"n": 1}'))
        assert chat(running, structured).text == '{"n": 1}'
        variant.next(Script(text='```json\n{"n": 2,}\n```'))
        assert json.loads(chat(running, structured).text) == {"n": 2}
        variant.next(Script(text="three"), Script(text='{"n": 3}'))
        corrected = chat(running, structured)
        assert json.loads(corrected.text) == {"n": 3}
        assert variant.asked[-1]["messages"][-1]["role"] == "user" and len(variant.asked[-1]["messages"]) == 3
        variant.next(Script(text="four"), Script(text="four"))
        escalated = chat(running, structured)
        assert json.loads(escalated.text) == {"n": 9}
        assert escalated.headers["x-quantgate-variant-name"] == "BF16"
        exchanges = until(lambda: len(kept(running.gateway)) == 4 and kept(running.gateway))
        assert [one.step for one in exchanges] == ["passed", "repaired", "corrected", "escalated"]
        assert exchanges[1].repairs and exchanges[3].answered_by == "BF16" and len(exchanges[3].faults) == 2
        usage = escalated.body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert exchanges[3].prompt_tokens == usage["prompt_tokens"] > corrected.body["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_nothing_mends_never_leaves(stream: bool) -> None:
    with (
        ScriptedUpstream(lambda _body: '{"n": "one"}') as variant,
        ScriptedUpstream(lambda _body: '{"m": 1}') as baseline,
        Running(gateway_of(variant, baseline, policy=RoutePolicy(stream="buffer"))) as running,
    ):
        answer = chat(running, asked(response_format=FORMAT, stream=stream))
        assert (answer.status, answer.error["code"], answer.headers["x-should-retry"]) == (
            422,
            "invalid_answer",
            "false",
        )
        assert b"one" not in answer.raw
        assert until(lambda: kept(running.gateway))[0].step == "failed"


def test_several_choices_are_each_held_to_the_contract() -> None:
    with ScriptedUpstream(lambda _body: '{"n": 1') as variant, Running(gateway_of(variant)) as running:
        answer = chat(running, asked(response_format=FORMAT, n=2))
        assert [json.loads(one["message"]["content"]) for one in answer.body["choices"]] == [{"n": 1}, {"n": 1}]
        assert [one["index"] for one in answer.body["choices"]] == [0, 1]
