"""Streams through a real gateway: what leaves under each policy, in which form, and what never does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.serve.gateways import asked, chat, gateway_of, kept, line_with, streaming, until

from quantgate.guard.confirm import Gate, Rule, Rules
from quantgate.guard.proposals import Memory
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import RoutePolicy

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
TOOL = {"type": "function", "function": {"name": "pay", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": '{"n": 12}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
POLICIES = ("passthrough", "holdback", "window", "buffer")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stream_is_whole_under_every_policy(policy: Any) -> None:
    with (
        ScriptedUpstream(lambda _body: "words that come one by one, to the end") as variant,
        Running(gateway_of(variant, policy=RoutePolicy(stream=policy, window=3))) as running,
    ):
        answer = chat(running, asked(stream=True))
        assert answer.text == "words that come one by one, to the end"
        assert answer.done and answer.finishes == ["stop"] and answer.data.count("[DONE]") == 1
        for chunk in answer.chunks:
            assert chunk["object"] == "chat.completion.chunk" and not chunk.get("usage") and chunk["choices"]
        assert until(lambda: kept(running.gateway))[0].ttft_s is not None


def test_free_text_leaves_as_the_very_bytes_that_came() -> None:
    with ScriptedUpstream(lambda _body: "text") as variant, Running(gateway_of(variant)) as running:
        raw = chat(running, asked(stream=True)).raw
        assert b'data: {"id":"chatcmpl-scripted","object":"chat.completion.chunk","created":1700000000,' in raw
        tail = raw.rpartition(b"data: [DONE]")[0].splitlines()
        assert any(line.startswith(b": server-timing parse;dur=") for line in tail)
        assert b": x-quantgate-step passed" in tail


@pytest.mark.parametrize("policy", POLICIES)
def test_usage_is_always_asked_for_and_told_to_those_who_asked(policy: Any) -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant, policy=RoutePolicy(stream=policy))) as running:
        answer = chat(running, asked(stream=True, stream_options={"include_usage": True}))
        assert answer.chunks[-1]["choices"] == [] and answer.chunks[-1]["usage"]["total_tokens"] > 0
        assert all(not chunk.get("usage") for chunk in answer.chunks[:-1])
        silent = chat(running, asked(stream=True))
        assert all(chunk["choices"] for chunk in silent.chunks)
        if policy != "buffer":
            assert all(body["stream_options"] == {"include_usage": True} for body in variant.asked)
        exchanges = until(lambda: len(kept(running.gateway)) == 2 and kept(running.gateway))
        assert all(one.prompt_tokens and one.answer_tokens for one in exchanges)


@pytest.mark.parametrize("policy", POLICIES)
def test_tool_calls_are_put_right_on_the_way(policy: Any) -> None:
    begun = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"n"'}}
    rest = {"function": {"arguments": ": 12}"}}
    crooked = Script(chunks=[{"tool_calls": [begun]}, {"tool_calls": [rest]}], message=CALLS, finish="tool_calls")
    with (
        ScriptedUpstream(always=lambda _body: crooked) as variant,
        Running(gateway_of(variant, policy=RoutePolicy(stream=policy))) as running,
    ):
        answer = chat(running, asked(stream=True, tools=[TOOL]))
        pieces = [
            call for chunk in answer.chunks for one in chunk["choices"] for call in one["delta"].get("tool_calls", ())
        ]
        assert {piece["index"] for piece in pieces} == {0}
        assert [piece["function"].get("name") for piece in pieces if "id" in piece] == ["pay"]
        assert json.loads("".join(piece["function"].get("arguments", "") for piece in pieces)) == {"n": 12}
        assert answer.finishes == ["tool_calls"] and answer.done


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("text", ['{"n": "one"}', '{"m": 1}', "words", '{"n": 1} and more', '{"n": 1'])
def test_an_invalid_answer_never_ends_well(policy: Any, text: str) -> None:
    with (
        ScriptedUpstream(lambda _body: text) as variant,
        Running(gateway_of(variant, policy=RoutePolicy(stream=policy, corrections=0))) as running,
    ):
        answer = chat(running, asked(stream=True, response_format=FORMAT))
        if answer.status == 200 and policy == "buffer":  # mended without a token
            assert json.loads(answer.text)["n"] == 1 and answer.done
            return
        error = answer.error if answer.status != 200 else answer.chunks[-1]["error"]
        assert error["code"] == "invalid_answer"
        if answer.status == 200:
            assert not answer.done and not answer.finishes


@pytest.mark.parametrize("policy", ["holdback", "window", "buffer"])
def test_an_invalid_answer_that_has_not_left_is_begun_again_at_the_baseline(policy: Any) -> None:
    with (
        ScriptedUpstream(lambda _body: "no JSON at all") as variant,
        ScriptedUpstream(lambda _body: '{"n": 5}') as baseline,
        Running(gateway_of(variant, baseline, policy=RoutePolicy(stream=policy))) as running,
    ):
        answer = chat(running, asked(stream=True, response_format=FORMAT))
        exchange = until(lambda: kept(running.gateway))[0]
        assert (json.loads(answer.text), answer.done) == ({"n": 5}, True)
        assert (exchange.step, exchange.answered_by) == ("escalated", "BF16") and exchange.faults
        assert answer.headers["x-quantgate-variant-name"] == "BF16"


def test_a_silent_upstream_is_bridged_by_comments() -> None:
    script = Script("stall_midway", after=0)
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        Running(gateway_of(variant, policy=RoutePolicy(keep_alive_s=0.1))) as running,
        streaming(running, asked()) as response,
    ):
        assert response.status == 200 and response.getheader("x-quantgate-variant-name") == "W4A16"
        assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
        line_with(response, b": keep-alive")
        line_with(response, b": keep-alive")


def test_after_a_comment_the_baseline_may_still_answer_and_the_end_tells_it() -> None:
    script = Script("cut", after=0, held=True)
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        ScriptedUpstream(lambda _body: "instead") as baseline,
        Running(gateway_of(variant, baseline, policy=RoutePolicy(keep_alive_s=0.1))) as running,
        streaming(running, asked()) as response,
    ):
        line_with(response, b": keep-alive")
        variant.go_on()
        rest = response.read()
        assert b'"content":"inst"' in rest and b"data: [DONE]" in rest
        assert b": x-quantgate-variant-name BF16" in rest


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_of_blanks_without_end_is_broken_off(policy: Any) -> None:
    blanks = Script("blanks") if policy != "buffer" else Script(text="{" + " " * 4000)
    with (
        ScriptedUpstream(always=lambda _body: blanks) as variant,
        Running(gateway_of(variant, policy=RoutePolicy(stream=policy, corrections=0))) as running,
    ):
        answer = chat(running, asked(stream=True, response_format=FORMAT))
        assert not answer.done if answer.status == 200 else answer.error["code"] == "invalid_answer"
        assert policy == "buffer" or variant.wait(lambda upstream: len(upstream.aborts) == 1)


@pytest.mark.parametrize("policy", ["holdback", "buffer"])
def test_a_held_tool_call_is_withheld_and_delivered_once_when_it_was_approved(policy: Any) -> None:
    gate = Gate(Rules(rules=(Rule(tool="pay", when=("/n > 10",)),)), Memory())
    script = Script(message=CALLS, finish="tool_calls")
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        Running(gateway_of(variant, policy=RoutePolicy(stream=policy, gate=gate))) as running,
    ):
        whole = chat(running, asked(tools=[TOOL]))
        message = whole.body["choices"][0]["message"]
        assert "tool_calls" not in message and whole.body["choices"][0]["finish_reason"] == "stop"
        pending = message["quantgate"]["pending_approval"]
        streamed = chat(running, asked(stream=True, tools=[TOOL]))
        assert streamed.finishes == ["stop"] and b'"arguments"' not in streamed.raw
        early = chat(running, asked(tools=[TOOL]), x_quantgate_approval=pending["id"])
        assert early.status == 403 and early.error["code"].startswith("approval_")
        gate.approve(pending["id"], by="somebody", hash=pending["hash"])
        asked_before = len(variant.asked)
        again = chat(running, asked(tools=[TOOL]), x_quantgate_approval=pending["id"])
        given = again.body["choices"][0]["message"]["tool_calls"][0]["function"]
        assert (given["name"], json.loads(given["arguments"])) == ("pay", {"n": 12})
        assert again.body["object"] == "chat.completion" and len(variant.asked) == asked_before
        twice = chat(running, asked(tools=[TOOL], stream=True), x_quantgate_approval=pending["id"])
        assert twice.status == 403
