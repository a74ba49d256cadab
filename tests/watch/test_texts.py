"""Through real gateways: what of a text reaches the marks, and that no word of it reaches anything else."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.serve.gateways import asked, chat, gateway_of, kept, streaming, until
from tests.serve.opened import config_of, served

from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Journal, Reader
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import RoutePolicy
from quantgate.watch.attached import attach
from quantgate.watch.marking import Marker

SAID, CANARY = "words that come one by one, to the end", "zanzibar-kumquat-7719"
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "required": ["n"]}}}


def text_of(running: Running, number: int = 0) -> dict[str, Any]:
    until(lambda: len(kept(running.gateway)) > number)
    found = kept(running.gateway)[number].text
    assert found is not None
    return found


@pytest.mark.parametrize("policy", ["passthrough", "holdback", "window", "buffer", None])
def test_the_whole_text_is_handed_on_under_every_policy(policy: Any) -> None:
    route = RoutePolicy(stream=policy, window=3) if policy else RoutePolicy()
    with (
        ScriptedUpstream(lambda _body: SAID) as variant,
        Running(gateway_of(variant, policy=route, keep_text=True)) as running,
    ):
        chat(running, asked("a prompt", stream=policy is not None, tools=[TOOL]))
        found = text_of(running)
        assert found["prompt"][-1]["content"] == "a prompt" and found["tools"] is True
        assert [one["content"] for one in found["answer"]] == [SAID]


def test_of_a_request_that_nobody_answered_there_is_the_prompt() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant, keep_text=True)) as running:
        for at, stream in enumerate((False, True)):
            variant.next(Script("status", status=500))
            assert chat(running, asked("a prompt", stream=stream)).status == 502
            found = text_of(running, at)
            assert found["prompt"][-1]["content"] == "a prompt" and found["answer"] == []


def test_of_a_stream_that_was_cut_there_is_what_came() -> None:
    with ScriptedUpstream(lambda _body: SAID) as variant, Running(gateway_of(variant, keep_text=True)) as running:
        variant.next(Script("cut", after=4))
        assert not chat(running, asked(stream=True)).done
        (answer,) = text_of(running)["answer"]
        assert answer["content"] and SAID.startswith(answer["content"]) and answer["content"] != SAID


def test_of_a_stream_whose_client_left_there_is_what_came() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant, keep_text=True)) as running:
        variant.next(Script("stall_midway", after=3, text=SAID))
        with streaming(running, asked()) as response:
            while b"content" not in response.readline():
                pass
        found = text_of(running)
        assert kept(running.gateway)[0].disconnected and SAID.startswith(found["answer"][0]["content"])


def test_an_answer_that_the_guard_refused_leaves_the_prompt_and_what_was_streamed() -> None:
    with ScriptedUpstream(lambda _body: "no JSON") as variant:
        policy = RoutePolicy(corrections=0)
        with Running(gateway_of(variant, policy=policy, keep_text=True)) as running:
            for at, stream in enumerate((False, True)):
                chat(running, asked("a prompt", response_format=FORMAT, stream=stream))
                assert text_of(running, at)["prompt"][-1]["content"] == "a prompt"
                assert kept(running.gateway)[at].faults


@pytest.mark.parametrize("stream", [False, True])
def test_the_mean_log_probability_is_handed_on(stream: bool) -> None:
    rows = [[{"token": "a", "logprob": -0.5, "bytes": None}], [{"token": "b", "logprob": -1.5, "bytes": None}]]
    if stream:
        deltas = [
            {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": row}, "finish_reason": None}]}
            for row in rows
        ]  # fmt: skip
        last = {**deltas[0], "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in [*deltas, last]) + b"data: [DONE]\n\n"
        kind = b"text/event-stream"
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}
        told = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
        body = json.dumps(told | {"choices": [choice | {"logprobs": {"content": rows[0] + rows[1]}}]}).encode()
        kind = b"application/json"
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body)
    with ScriptedUpstream() as variant, Running(gateway_of(variant, keep_text=True)) as running:
        variant.next(Script(raw=raw))
        assert chat(running, asked(stream=stream, logprobs=True)).status == 200
        assert text_of(running)["logprob"] == -1.0


def test_marks_reach_the_database_and_texts_do_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'exchanges.sqlite'}"
    journal = Journal(connect(url), keep_text=False)
    journal.start()
    marker = Marker(journal, b"key")
    with (
        ScriptedUpstream(lambda _body: "yes, and so on " * 60) as variant,
        Running(gateway_of(variant, keep_text=True, sink=marker)) as running,
    ):
        for stream in (False, True):
            chat(running, asked("Which of the trains to Ulm leaves at noon?", stream=stream), x_session_id="one")
        variant.next(Script("cut", after=90))
        chat(running, asked("Which of the trains to Ulm leaves at noon?", stream=True), x_session_id="one")
        until(lambda: marker.marked == 3)
    marker.close()
    journal.close()
    reader = Reader(connect(url))
    found = [one for _, one in reader.since()]
    reader.close()
    assert [one.marks["looping"] for one in found] == [1.0, 1.0, 1.0]
    assert len({one.prompt_hash for one in found}) == 1 and found[0].prompt_hash is not None
    assert all(one.text is None for one in found)
    assert b"and so on" not in every_byte(tmp_path) and b"trains to Ulm" not in every_byte(tmp_path)


def every_byte(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def hostile_bodies() -> list[dict[str, Any]]:
    """Requests that go right, go wrong at the variant, at the guard, and at the client."""
    say = [{"role": "user", "content": f"{CANARY} is what I ask about, in eight words"}]
    return [
        {"messages": say},
        {"messages": say, "stream": True},
        {"messages": say, "response_format": FORMAT},
        {"messages": say, "response_format": FORMAT, "stream": True},
        {"messages": [*say, {"role": "assistant", "content": CANARY}, {"role": "user", "content": f"No, {CANARY}!"}]},
        {"messages": say, "tools": [TOOL], "n": 2},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": CANARY}]}]},
    ]


@pytest.mark.parametrize("kind", ["true", "cut", "malformed", "error_event", "status", "early_end"])
def test_no_word_of_a_text_reaches_a_file_or_a_log(kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        ScriptedUpstream(lambda _body: f"{CANARY} " * 30) as baseline,
        ScriptedUpstream(lambda _body: f"{CANARY} " * 30) as shadow,
    ):
        config = config_of(
            tmp_path, {"BF16": baseline, "W4A16": shadow},
            live={"baseline": "BF16"}, shadow={"variant": "W4A16", "share": 1.0},
        )  # fmt: skip
        with served(config, attach=attach) as (gateway, client):
            for body in hostile_bodies():
                for script in (None, Script(kind, after=3)):
                    if script is not None:
                        baseline.next(script)
                    client("POST", "/v1/chat/completions", {"model": "laptop", **body}, x_session_id="one")
                    baseline.forget()
            journal, exchanges = gateway.parts.journal, gateway.parts.folder.exchanges
            until(lambda: journal.written >= 2 * len(hostile_bodies()))
            told = json.dumps(gateway.parts.warnings())
            metrics = client("GET", "/metrics").raw
        files = every_byte(tmp_path)
    assert len(files) > 10_000 and CANARY.encode() not in files + metrics
    assert CANARY not in told
    mine = [one for one in caplog.records if one.name.startswith("quantgate")]
    assert all(CANARY not in str(one.getMessage()) + str(one.exc_text) for one in mine)
    reader = Reader(connect(exchanges))
    found = [one for _, one in reader.since()]
    reader.close()
    assert sum(bool(one.marks) for one in found) >= len(hostile_bodies())
    assert any(one.shadow and "looping" in one.marks for one in found)


def test_where_the_operator_keeps_texts_the_same_search_finds_them(tmp_path: Path) -> None:
    with ScriptedUpstream(lambda _body: CANARY) as baseline:
        config = config_of(tmp_path, {"BF16": baseline}, live={"baseline": "BF16"}, exchanges={"keep_text": True})
        with served(config, attach=attach) as (gateway, client):
            client.chat()
            journal = gateway.parts.journal
            until(lambda: journal.written)
    assert CANARY.encode() in every_byte(tmp_path)


@pytest.mark.parametrize("stream", [False, True])
def test_a_shadow_is_held_against_the_answer_that_left(stream: bool, tmp_path: Path) -> None:
    with ScriptedUpstream(lambda _body: SAID) as baseline, ScriptedUpstream(lambda _body: " ") as shadow:
        config = config_of(
            tmp_path, {"BF16": baseline, "W4A16": shadow},
            live={"baseline": "BF16"}, shadow={"variant": "W4A16", "share": 1.0},
        )  # fmt: skip
        with served(config, attach=attach) as (gateway, client):
            assert client.chat(stream=stream).status == 200
            journal, exchanges = gateway.parts.journal, gateway.parts.folder.exchanges
            until(lambda: journal.written == 2)
    reader = Reader(connect(exchanges))
    marks = {one.shadow: one.marks for _, one in reader.since()}
    reader.close()
    assert marks[True]["shadow_disagreement"] == 1.0 and "shadow_disagreement" not in marks[False]
    assert (marks[True]["empty"], marks[False]["empty"]) == (1.0, 0.0)
