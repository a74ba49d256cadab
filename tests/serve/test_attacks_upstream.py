"""A hostile or broken upstream, through a real gateway: what it says never becomes more than the guards allow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from tests.serve.gateways import Answer, asked, call, chat, gateway_of, kept, until
from tests.serve.hostile import SECRET, STRUCTURED, TOOLS, body_of, choice, chunks, event, piece, stream_of, whole

from quantgate.guard import validators
from quantgate.guard.confirm import Gate, Rule, Rules
from quantgate.guard.proposals import Memory
from quantgate.serve import Exchange
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import RoutePolicy

CHAT = "/v1/chat/completions"
ALONE = RoutePolicy(corrections=0, escalate=False)
FORBIDDEN = validators.build({"forbidden": {"words": [SECRET]}}, canary=False)


class Door:
    """A gateway whose upstream gives one answer after the other."""

    def __init__(self, run: Running, upstream: ScriptedUpstream) -> None:
        self.run, self.upstream = run, upstream

    def told(self, script: Script, path: str, **more: Any) -> tuple[Answer, Exchange]:
        before = len(kept(self.run.gateway))
        self.upstream.next(script)
        answer = call(self.run, path, asked(**more) if "chat" in path else {"model": "demo", **more})
        return answer, until(lambda: kept(self.run.gateway)[before:])[0]


@contextmanager
def opened(policy: RoutePolicy) -> Iterator[Door]:
    with ScriptedUpstream() as upstream, Running(gateway_of(upstream, policy=policy)) as running:
        yield Door(running, upstream)


@pytest.fixture(scope="module")
def plain() -> Iterator[Door]:
    with opened(ALONE) as door:
        yield door


def told(where: Door | RoutePolicy, script: Script, path: str = CHAT, **more: Any) -> tuple[Answer, Exchange]:
    """What a client gets of one such answer, and the record of it."""
    if isinstance(where, Door):
        return where.told(script, path, **more)
    with opened(where) as door:
        return door.told(script, path, **more)


def refused(answer: Answer) -> str:
    """The code of the error object, also of one at the end of a stream."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert not answer.done
        return str(answer.chunks[-1]["error"]["code"])
    return str(answer.error["code"])


LOGPROBS = {"content": [{"token": SECRET, "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
CALL = {"index": 0, "id": "hidden-call", "type": "function", "function": {"name": "pay", "arguments": '{"a": 7}'}}


def gated() -> RoutePolicy:
    return RoutePolicy(corrections=0, escalate=False, gate=Gate(Rules(rules=(Rule(tool="*"),)), Memory()))


def test_a_held_call_does_not_leave_in_its_tokens() -> None:
    held = {**choice(None, finish="tool_calls", tool_calls=[CALL]), "logprobs": LOGPROBS}
    answer, _ = told(gated(), whole(body_of(held)), logprobs=True, **TOOLS)
    assert answer.status == 200 and "pending_approval" in answer.raw.decode()
    assert SECRET.encode() not in answer.raw and b"hidden-call" not in answer.raw


def test_a_held_call_of_a_stream_does_not_leave_in_its_tokens() -> None:
    script = chunks(
        piece({"role": "assistant", "content": ""}, logprobs=LOGPROBS),
        piece({"content": "Well. "}, logprobs=LOGPROBS),
        piece({"tool_calls": [CALL]}, logprobs=LOGPROBS),
        piece({}, "tool_calls"),
    )
    answer, _ = told(gated(), script, stream=True, logprobs=True, **TOOLS)
    assert answer.done and "pending_approval" in answer.raw.decode() and answer.text.startswith("Well. ")
    assert SECRET.encode() not in answer.raw and b"hidden-call" not in answer.raw


@pytest.mark.parametrize("policy", ["window", "buffer"])
@pytest.mark.parametrize("key", ["annotations", "audio", "thinking_blocks", "parsed", "reasoning_details"])
def test_a_validator_is_not_passed_by_a_key_that_it_does_not_know(key: str, policy: Any) -> None:
    route = RoutePolicy(stream=policy, corrections=0, escalate=False, validators=FORBIDDEN)
    hidden = {key: [{"text": SECRET}]}
    answer, _ = told(route, whole(body_of(choice("fine", **hidden))))
    assert answer.text == "fine" and SECRET.encode() not in answer.raw
    script = chunks(
        piece({"role": "assistant"}), piece({"content": "fi", **hidden}), piece({"content": "ne"}), piece({}, "stop")
    )
    held = script if policy == "window" else whole(body_of(choice("fine", **hidden)))
    answer, _ = told(route, held, stream=True)
    assert answer.text == "fine" and answer.done and SECRET.encode() not in answer.raw


def test_a_validator_is_not_passed_by_content_in_parts() -> None:
    parts = [{"type": "text", "text": SECRET[:3]}, {"type": "text", "text": SECRET[3:]}]
    answer, _ = told(RoutePolicy(corrections=0, escalate=False, validators=FORBIDDEN), whole(body_of(choice(parts))))
    assert answer.status != 200 and SECRET[3:].encode() not in answer.raw


def test_a_whole_message_within_a_chunk_never_leaves(plain: Door) -> None:
    more = {"message": {"role": "assistant", "content": "{}", "tool_calls": [CALL]}}
    script = chunks(
        piece({"content": '{"a"'}), piece({"content": ": 1"}, **more), piece({"content": "}"}), piece({}, "stop")
    )
    answer, _ = told(plain, script, stream=True, **STRUCTURED)
    assert b"hidden-call" not in answer.raw


def test_more_choices_than_were_asked_for_are_refused(plain: Door) -> None:
    good = choice('{"a": 1}')
    answer, _ = told(plain, whole(body_of(good, {**good, "index": 1})), **STRUCTURED)
    assert (answer.status, refused(answer)) == (502, "upstream_malformed")
    script = chunks(
        piece({"content": "a"}), piece({"content": "b"}, index=1), piece({}, "stop"), piece({}, "stop", index=1)
    )
    answer, _ = told(plain, script, stream=True)
    assert not answer.headers["content-type"].startswith("text/event-stream") or not answer.done


@pytest.mark.parametrize("second", [0, "1", -1, None, 7, True, 1.5])
def test_choices_of_one_index_or_of_none_are_refused(plain: Door, second: Any) -> None:
    answer, _ = told(plain, whole(body_of(choice("a"), choice("b", index=second))), n=2)
    assert (answer.status, refused(answer)) == (502, "upstream_malformed")


def test_fewer_choices_than_were_asked_for_are_what_they_are(plain: Door) -> None:
    answer, _ = told(plain, whole(body_of(choice("a"))), n=2)
    assert answer.status == 200 and len(answer.body["choices"]) == 1


@pytest.mark.parametrize("mark", [b"\r", b"\r\r"])
def test_what_the_guard_read_is_what_a_client_reads(plain: Door, mark: bytes) -> None:
    """A carriage return between two tokens of JSON is a blank there, and the end of a line for a reader of events."""
    middle = event(piece({"content": "1"})).replace(b"data: ", b"data: " + mark)
    script = stream_of(
        event(piece({"content": '{"a": '})), middle, event(piece({"content": "}"})), event(piece({}, "stop"))
    )
    answer, _ = told(plain, script, stream=True, **STRUCTURED)
    lines = answer.raw.decode().replace("\r", "\n").split("\n")
    found = [json.loads(line[5:]) for line in lines if line.startswith("data:") and "[DONE]" not in line]
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in found) == '{"a": 1}'


def test_a_mark_before_the_first_event_loses_nothing(plain: Door) -> None:
    script = stream_of(b"\xef\xbb\xbf", event(piece({"content": "al"})), event(piece({"content": "l"}, "stop")))
    answer, _ = told(plain, script, stream=True)
    assert (answer.text, answer.done) == ("all", True)


@pytest.mark.parametrize("end", [b"data: [DONE]\n", b"data: [DONE]"])
def test_an_end_mark_without_its_empty_line_ends_the_answer(plain: Door, end: bytes) -> None:
    answer, _ = told(plain, stream_of(event(piece({"content": "all"}, "stop")), done=end), stream=True)
    assert (answer.text, answer.done) == ("all", True)


@pytest.mark.parametrize("chunk", [{"choices": None}, {"id": "x"}, {"choices": [], "text": "?"}, {"choices": []}])
def test_chunks_that_say_nothing_do_not_reach_a_client_that_counts_on_choices(
    plain: Door, chunk: Mapping[str, Any]
) -> None:
    script = chunks(piece({"content": "a"}), chunk, piece({"content": "b"}), piece({}, "stop"), chunk)
    answer, _ = told(plain, script, stream=True)
    assert (answer.text, answer.done) == ("ab", True)
    assert all(isinstance(one["choices"], list) for one in answer.chunks)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "lie",
    [
        {"usage": {"prompt_tokens": "many", "completion_tokens": "x", "total_tokens": []}},
        {"usage": {"prompt_tokens": 2**64 - 1, "completion_tokens": 2**64 - 1, "total_tokens": 0}},
        {"usage": {"prompt_tokens": -5, "completion_tokens": -5, "total_tokens": -10}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": []}},
        {"usage": {"prompt_tokens": 1.5, "completion_tokens": True}},
        {"usage": [1, 2]},
        {"usage": "free"},
        {"quantgate": {"stages": {"queue": "long", "x\r\nset-cookie: a=b": 1, "decode": -1, "prefill": 1e300}}},
        {"quantgate": ["stages"]},
        {"timings": {"prompt_ms": 1e308, "predicted_ms": True}, "metrics": {"queue_time_ms": [1]}},
        {"id": ["x"], "created": "yesterday", "model": {"a": 1}, "system_fingerprint": 3},
    ],
)  # fmt: skip
def test_lies_beside_an_answer_are_not_there(plain: Door, lie: dict[str, Any], stream: bool, path: str) -> None:
    script = (
        chunks(
            piece({"content": "hel"}), piece({"content": "lo"}), piece({}, "stop"), {**piece({}), "choices": [], **lie}
        )
        if stream
        else whole(body_of(choice("hello"), **lie))
    )
    given = {"input": "x"} if "responses" in path else {} if "chat" in path else {"prompt": "x"}
    answer, exchange = told(plain, script, path=path, stream=stream, **given)
    assert answer.status == 200 and b"hel" in answer.raw and "internal_error" not in answer.raw.decode()
    assert exchange.error == "" and "set-cookie" not in answer.headers
    assert (exchange.prompt_tokens or 0) < 2**40 and (exchange.answer_tokens or 0) < 2**40
    assert "inf" not in answer.headers["server-timing"] and len(answer.headers["server-timing"]) < 400


BAD_LOGPROBS = [["x"], {"content": {"token": 1}}, {"content": ["x"]}, {"content": [{"token": "a"}]}, "none",
                {"content": [{"token": "a", "logprob": 0, "top_logprobs": [3]}]}]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bad", BAD_LOGPROBS, ids=str)
def test_log_probabilities_that_are_none_are_left_out(plain: Door, bad: Any, stream: bool, path: str) -> None:
    script = (
        chunks(piece({"content": "hel"}, logprobs=bad), piece({"content": "lo"}, logprobs=bad), piece({}, "stop"))
        if stream
        else whole(body_of({**choice("hello"), "logprobs": bad}))
    )
    given = {"input": "x"} if "responses" in path else {} if "chat" in path else {"prompt": "x"}
    answer, exchange = told(plain, script, path=path, stream=stream, **given)
    assert answer.status == 200 and b"hel" in answer.raw and exchange.error == ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choices",
    [
        "text", {"0": {}}, [], [None], [3], [[]], [{"message": None, "delta": 3}], [{"message": [], "delta": []}],
        [choice("x", tool_calls="pay")], [choice("x", tool_calls=[None])], [choice("x", tool_calls={"a": 1})],
        [choice("x", tool_calls=[{"function": {"name": 3, "arguments": 4}}])], [choice(3)], [choice({"a": 1})],
        [choice("x", finish=["stop"])], [choice("x", finish=3)],
        [choice(None, tool_calls=[{"index": True, "function": {"name": "pay", "arguments": "[" * 4000}}])],
        [choice(None, refusal=["no"])], [choice("x", function_call={"name": "pay", "arguments": "{}"})],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_answer_is_one_typed_error_and_never_an_invalid_one(plain: Door, choices: Any, stream: bool) -> None:
    if stream:
        given = choices if not isinstance(choices, list) else [
            {**{k: v for k, v in one.items() if k != "message"}, "delta": one.get("message", one.get("delta"))}
            if isinstance(one, dict) else one for one in choices
        ]  # fmt: skip
        script = chunks({**piece({}), "choices": given}, piece({}, "stop"))
    else:
        script = whole(body_of(**{"choices": choices}))
    answer, exchange = told(plain, script, stream=stream, **STRUCTURED, **TOOLS)
    assert refused(answer) in ("upstream_malformed", "invalid_answer") and answer.status in (200, 422, 502)
    assert exchange.error != "internal_error"


@pytest.mark.parametrize("stream", [False, True])
def test_nesting_without_end_is_malformed_and_no_failure_of_the_gateway(plain: Door, stream: bool) -> None:
    deep = "[" * 900 + "]" * 900
    function = b'{"name": "pay", "arguments": {"a": %b}}' % deep.encode()
    call_ = b'[{"index": 0, "id": "c", "function": %b}]' % function
    if stream:
        raw = event(piece({"tool_calls": 0})).replace(b'"tool_calls": 0', b'"tool_calls": ' + call_)
        script = stream_of(raw, event(piece({}, "tool_calls")))
    else:
        raw = json.dumps(body_of(choice(None, finish="tool_calls", tool_calls=0))).encode()
        script = whole(raw.replace(b'"tool_calls": 0', b'"tool_calls": ' + call_))
    answer, exchange = told(plain, script, stream=stream, **TOOLS)
    assert refused(answer) in ("upstream_malformed", "invalid_answer") and exchange.error != "internal_error"


def test_usage_that_is_told_with_every_chunk_is_counted_once(plain: Door) -> None:
    def at(done: int) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 10, "completion_tokens": done, "total_tokens": 10 + done}}

    script = chunks(*[{**piece({"content": "w "}), **at(n)} for n in range(1, 6)], {**piece({}, "stop"), **at(5)})
    _, exchange = told(plain, script, stream=True, stream_options={"include_usage": True})
    assert (exchange.prompt_tokens, exchange.answer_tokens) == (10, 5)


@pytest.mark.parametrize("stream", [False, True])
def test_a_reason_for_the_end_that_is_a_text_is_not_kept(plain: Door, stream: bool) -> None:
    finish = SECRET + " text " * 1000
    script = (
        chunks(piece({"content": "a"}), piece({}, finish)) if stream else whole(body_of(choice("a", finish=finish)))
    )
    answer, exchange = told(plain, script, stream=stream)
    assert answer.text == "a" and exchange.finish == ""


def test_an_answer_that_nobody_asked_for_is_nobodys() -> None:
    """Two answers at once on one connection: the second one is not taken for the answer to the next request."""
    first, second = whole(body_of(choice("mine"))).raw, whole(body_of(choice(SECRET))).raw
    assert first and second
    scripts = iter([Script(raw=first + second), Script(text="yours")])
    with ScriptedUpstream(always=lambda _body: next(scripts)) as upstream, Running(gateway_of(upstream)) as running:
        assert chat(running, asked()).text == "mine"
        assert chat(running, asked()).text == "yours"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503])
def test_what_an_upstream_says_of_an_error_is_bounded_and_tells_no_key(status: int, caplog: Any) -> None:
    """Nor do its codes become labels without number."""
    from quantgate.serve.upstreams.http import HttpUpstream

    error = {
        "message": "Incorrect API key sk-upstream-1 for you " + "x" * 10_000,
        "code": "c" * 500,
        "type": "t" * 500,
        "param": "p" * 500,
    }
    with ScriptedUpstream(always=lambda _body: whole({"error": error}, status), key="sk-upstream-1") as upstream:
        gateway = gateway_of(upstream)
        gateway.settings.upstreams["W4A16"] = HttpUpstream(upstream.url, "scripted", key="sk-upstream-1")  # type: ignore[index]
        with Running(gateway) as running:
            for stream in (False, True):
                answer = chat(running, asked(stream=stream))
                assert b"sk-upstream-1" not in answer.raw and len(answer.raw) < 2500
            figures = call(running, "/metrics").raw
            assert b"ccccc" not in figures and b"sk-upstream" not in figures
        assert "sk-upstream-1" not in caplog.text and all(len(one.error) < 100 for one in kept(gateway))
