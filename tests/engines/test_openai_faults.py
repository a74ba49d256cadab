"""Everything that a server can do wrong, each told in one sentence, and none of it taken for an answer of the model."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from quantgate.engines import Completion, Failure, Prompt
from quantgate.engines._openai_http import Patience
from quantgate.engines._scripted_model import Says
from quantgate.engines._scripted_server import Asked, Fault, ScriptedServer, last
from quantgate.engines.openai import OpenAIEngine
from quantgate.errors import EngineError

SECRET = "sk-quantgate-test-0123456789"
QUICK = Patience(timeout_s=0.5, tries=3, first_s=0.01, longest_s=0.05)


def ask(text: str = "one two three four", **more: Any) -> Prompt:
    return Prompt(turns=(("user", text),), **{"max_tokens": 16} | more)


def opened(server: ScriptedServer, **settings: Any) -> OpenAIEngine:
    engine = OpenAIEngine(server.url, **{"patience": QUICK} | settings)
    server.asked.clear()
    return engine


@pytest.fixture
def server() -> Any:
    with ScriptedServer(lambda body: last(body).upper()) as running:
        yield running


PASSING = [
    Fault("status", status=429, headers={"Retry-After": "0"}),
    Fault("status", status=408),
    Fault("status", status=409),
    Fault("status", status=425),
    Fault("status", status=500),
    Fault("status", status=503),
    Fault("html", status=502),
    Fault("html", status=200),
    Fault("reset"),
    Fault("cut"),
    Fault("stall"),
    Fault("stall_midway"),
]
WHOLE = [Fault("truncated"), Fault("shape", value={"choices": []}), Fault("shape", value=[1]), Fault("shape", value={})]
PARTS = [
    Fault("early_end"),
    Fault("malformed"),
    Fault("error_event"),
    Fault("shape", value={"choices": "none"}),
    Fault("error_event", status=503),
]


@pytest.mark.parametrize("fault", [*PASSING, *WHOLE], ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_a_fault_that_passes_leaves_no_trace(server: ScriptedServer, fault: Fault) -> None:
    engine = opened(server)
    server.next(fault)
    (answer,) = engine.generate([ask()])
    assert isinstance(answer, Completion) and answer.text == "ONE TWO THREE FOUR"
    assert len(server.asked) == 2


@pytest.mark.parametrize("fault", [*PASSING, *PARTS], ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_a_fault_in_a_stream_that_passes_leaves_no_trace(server: ScriptedServer, fault: Fault) -> None:
    engine = opened(server, stream=True)
    server.next(fault)
    (answer,) = engine.generate([ask()])
    assert isinstance(answer, Completion) and answer.text == "ONE TWO THREE FOUR" and answer.tokens == 4
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("status", status=500, text="out of memory"), r"no answer in 3 tries: out of memory \(status 500\)"),
        (Fault("html", status=502), r"a web page came instead of JSON \(status 502\)"),
        (Fault("html", status=200), r"a web page came instead of JSON"),
        (Fault("truncated"), r"broken JSON came, which begins '\{"),
        (Fault("shape", value={"choices": []}), "there is no choice in the answer"),
        (Fault("shape", value={"choices": [{"message": None}]}), "the first choice has no 'message'"),
        (Fault("shape", value={"choices": [{"message": {"content": 7}}]}), "'content' is a JSON int, not a text"),
        (Fault("shape", value={"choices": [{"message": {"content": "a"}}]}), "has no 'finish_reason'"),
        (Fault("shape", value=[]), "the answer is a JSON list|a JSON list came, not an object"),
        (Fault("cut"), "the connection was cut before the answer ended"),
        (Fault("stall"), "no answer within 0.5 s"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_fault_that_stays_is_one_lost_request(server: ScriptedServer, fault: Fault, sentence: str) -> None:
    engine = opened(server)
    server.always = lambda asked: fault if last(asked.body) == "bad" else None
    bad, good = engine.generate([ask("bad"), ask("good")])
    assert isinstance(good, Completion) and good.text == "GOOD"
    assert isinstance(bad, Failure) and bad.lost
    assert re.search(sentence, bad.reason), bad.reason
    assert "\n" not in bad.reason


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("early_end"), "the stream ended before the answer did"),
        (Fault("malformed"), "broken JSON came"),
        (Fault("error_event", text="engine died"), "the server broke off: engine died"),
        (Fault("cut"), "the connection was cut"),
        (Fault("stall_midway"), "no answer within 0.5 s"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_broken_stream_is_never_half_an_answer(server: ScriptedServer, fault: Fault, sentence: str) -> None:
    engine = opened(server, stream=True)
    server.always = lambda asked: fault
    (bad,) = engine.generate([ask()])
    assert isinstance(bad, Failure) and bad.lost and sentence in bad.reason


def test_an_error_about_the_request_in_a_stream_is_not_asked_again(server: ScriptedServer) -> None:
    engine = opened(server, stream=True)
    server.next(Fault("error_event", status=400, text="maximum context length is 8 tokens"))
    (bad,) = engine.generate([ask()])
    assert isinstance(bad, Failure) and not bad.lost and "maximum context length is 8 tokens" in bad.reason
    assert len(server.asked) == 1


def test_a_prompt_that_is_too_long_is_a_failure_of_the_model_with_the_servers_words(server: ScriptedServer) -> None:
    engine = opened(server)
    server.next(Fault("status", status=400, text="This model's maximum context length is 8 tokens.", code="x"))
    (bad,) = engine.generate([ask()])
    assert bad == Failure(
        reason="the server refuses the request: This model's maximum context length is 8 tokens. (status 400)"
    )
    assert len(server.asked) == 1


def test_another_refusal_of_a_request_says_nothing_about_the_model(server: ScriptedServer) -> None:
    engine = opened(server)
    server.next(Fault("status", status=422, text="response_format is not supported"))
    (bad,) = engine.generate([ask()])
    assert isinstance(bad, Failure) and bad.lost and "response_format is not supported (status 422)" in bad.reason


def test_retry_after_is_waited_for_by_everyone(server: ScriptedServer) -> None:
    engine = opened(server, concurrency=4)
    server.next(Fault("status", status=429, headers={"Retry-After": "0.4"}))
    began = time.monotonic()
    answers = engine.generate([ask(f"{at}") for at in range(12)])
    assert all(isinstance(one, Completion) for one in answers)
    assert time.monotonic() - began >= 0.4


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for(server: ScriptedServer) -> None:
    engine = opened(server)
    server.next(Fault("status", status=429, headers={"Retry-After": "4000"}, text="daily limit"))
    (bad,) = engine.generate([ask()])
    assert isinstance(bad, Failure) and bad.lost and "daily limit" in bad.reason and len(server.asked) == 1


def test_a_server_that_says_not_to_try_again_is_believed(server: ScriptedServer) -> None:
    engine = opened(server)
    server.next(Fault("status", status=500, headers={"x-should-retry": "false"}))
    (bad,) = engine.generate([ask()])
    assert isinstance(bad, Failure) and bad.lost and len(server.asked) == 1


def test_what_a_filter_withholds_is_an_answer_of_its_own_kind(server: ScriptedServer) -> None:
    server.answer = lambda body: Says("so far", finish="content_filter")
    engine = opened(server)
    server.next(Fault("status", status=400, code="content_filter", text="filtered"))
    first, second = engine.generate([ask(), ask()])
    assert {(one.text, one.finish) for one in (first, second)} == {("", "filtered"), ("so far", "filtered")}  # type: ignore[union-attr]


def test_an_answer_in_the_name_of_another_model_is_lost(server: ScriptedServer) -> None:
    engine = opened(server)
    server.next(Fault("other_model", text="cheaper"))
    (bad,) = engine.generate([ask()])
    assert bad == Failure(reason="answered by 'cheaper', and all before by 'scripted'", lost=True)


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_that_nobody_counted_are_not_known_and_never_zero(server: ScriptedServer, stream: bool) -> None:
    engine = opened(server, stream=stream)
    server.next(Fault("no_usage"))
    (answer,) = engine.generate([ask()])
    assert isinstance(answer, Completion) and answer.text == "ONE TWO THREE FOUR"
    assert answer.tokens is None and answer.prompt_tokens is None


def test_a_finished_stream_without_done_is_whole(server: ScriptedServer) -> None:
    engine = opened(server, stream=True)
    server.next(Fault("no_done"))
    (answer,) = engine.generate([ask()])
    assert isinstance(answer, Completion) and answer.text == "ONE TWO THREE FOUR" and answer.tokens == 4


def test_a_server_that_is_gone_stops_everything(server: ScriptedServer) -> None:
    engine = opened(server)
    server.stop()
    with pytest.raises(EngineError, match=r"/v1: no longer answers .*finished answers are kept"):
        engine.generate([ask() for _ in range(50)])


def test_a_model_that_is_gone_stops_everything(server: ScriptedServer) -> None:
    engine = opened(server)
    server.models = ("another",)
    with pytest.raises(EngineError, match="no longer has the model: The model `scripted` does not exist"):
        engine.generate([ask() for _ in range(50)])
    assert len(server.asked) <= engine.concurrency


def test_a_key_that_is_withdrawn_stops_everything_and_is_never_shown() -> None:
    with ScriptedServer(key=SECRET) as server:
        engine = opened(server, key=SECRET)
        server.key = "another"
        with pytest.raises(EngineError, match="the key is not accepted: Incorrect API key") as told:
            engine.generate([ask()])
        assert SECRET not in str(told.value) and "***" in str(told.value)


def test_nothing_is_spent_on_a_server_that_will_not_do() -> None:
    def refused(sentence: str, url: str, **settings: Any) -> None:
        with pytest.raises(EngineError, match=sentence):
            OpenAIEngine(url, **{"patience": QUICK} | settings)

    with ScriptedServer(key=SECRET, models=("one", "two")) as server:
        refused("a key is needed: Incorrect API key", server.url)
        refused("has 2 models \\('one', 'two'\\); name one under 'model'", server.url, key=SECRET)
        assert server.asked == []
        refused("does not exist.*it has no 'tow'; did you mean 'two'", server.url, key=SECRET, model="tow")
        refused("is this the address of an OpenAI-compatible API|does 'url' end where the API begins",
                server.url + "/chat", key=SECRET, model="one")  # fmt: skip
        gone = server.url
    refused(r"/models: no answer in 3 tries: cannot be reached \(.*\); start the server, or mend 'url'", gone)
    with ScriptedServer() as server:
        server.next(Fault("other_model", text="mini"))
        server.models = ("scripted",)
        engine = OpenAIEngine(server.url, patience=QUICK)  # an alias of a model that the server lists
        assert engine.served.reported == "mini"
        server.always = lambda asked: Fault("status", status=400, text="no chat template")
        refused("refuses a first request of one token: no chat template", server.url)
        server.always = lambda asked: Fault("html", status=503)
        refused("a web page came instead of JSON \\(status 503\\)", server.url)


def test_what_a_server_does_not_take_is_left_out_and_written_down() -> None:
    def strict(asked: Asked) -> Fault | None:
        for name in ("max_tokens", "seed"):
            if name in asked.body:
                return Fault("status", status=400, text=f"Unsupported parameter: '{name}'")
        return None

    with ScriptedServer(always=strict) as server:
        engine = opened(server)
        assert isinstance(engine.generate([ask()])[0], Completion)
        assert server.asked[0].body["max_completion_tokens"] == 16 and "seed" not in server.asked[0].body
        assert "seed=not taken" in engine.identity.runtime
