"""A server under load that breaks in every way: a sentence each, what was measured is kept, and decides nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quantgate.cli import app
from quantgate.engines import Prompt
from quantgate.engines._scripted_server import Asked, Fault, ScriptedServer
from quantgate.errors import EngineError
from quantgate.loadtest import Heard
from quantgate.loadtest.endpoint import Endpoint
from quantgate.loadtest.objectives import parse_objective
from quantgate.loadtest.result import LoadResult
from quantgate.pipeline.loading import Wanted, load_test

PROMPT = Prompt(turns=(("user", "abcdef ghi"),), max_tokens=8)


def ask(url: str, **settings: Any) -> Heard:
    async def go() -> Heard:
        async with Endpoint(url, **settings) as target:
            return await target.ask(PROMPT)

    return asyncio.run(go())


def test_a_stream_gives_first_token_gaps_end_and_what_the_server_counts_and_times() -> None:
    with ScriptedServer(timings=True) as server:
        heard = ask(server.url)
    assert heard.first is not None and heard.last is not None and heard.sent < heard.first <= heard.last
    assert not heard.lost and heard.tokens and heard.prompt_tokens
    assert len(heard.gaps_s) < heard.tokens and sum(heard.gaps_s) <= heard.last - heard.first
    assert heard.stages == {"prefill": 0.02, "decode": 0.03}


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("reset"), "the connection was cut"),
        (Fault("cut", after=1), "the connection was cut"),
        (Fault("html", status=200), "a web page came instead of JSON"),
        (Fault("html", status=502), "502"),
        (Fault("early_end"), "ended before the answer did"),
        (Fault("malformed", after=1), "broken JSON"),
        (Fault("error_event", after=1, text="out of memory"), "out of memory"),
        (Fault("status", status=429, text="slow down"), "slow down"),
        (Fault("status", status=400, text="too long"), "too long"),
        (Fault("stall_midway", after=1), "no answer within 0.5 s"),
        (Fault("stall"), "no answer within 0.5 s"),
    ],
)
def test_a_request_that_breaks_is_lost_with_the_reason(fault: Fault, sentence: str) -> None:
    async def go(url: str) -> Heard:
        async with Endpoint(url, timeout_s=0.5) as target:
            server.next(fault)
            return await target.ask(PROMPT)

    with ScriptedServer() as server:
        heard = asyncio.run(go(server.url))
    assert sentence in heard.lost and heard.last is None and not heard.gone


def wanted(**more: Any) -> Wanted:
    start: dict[str, Any] = {"rate": 40.0, "seconds": 1.0, "law": "constant", "suites": ("math",), "timeout_s": 5.0}
    return Wanted(**{**start, "objectives": (parse_objective("ttft-p95=2s"),), **more})


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("path", ["/v1", "/v1#m"])
def test_an_endpoint_that_is_down_is_told_before_anything_is_sent(tmp_path: Path, path: str) -> None:
    with pytest.raises(EngineError, match="cannot be reached") as told:
        load_test(f"http://127.0.0.1:{closed_port()}{path}", None, wanted(), out=tmp_path / "out")
    assert "--model" not in str(told.value) and "mend" in str(told.value)
    assert not (tmp_path / "out" / "load.json").exists()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("html", status=200), "web page"),
        (Fault("status", status=401), "key"),
        (Fault("stall"), "no answer within"),
    ],
)
def test_a_server_that_does_not_answer_at_all_is_one_sentence(tmp_path: Path, fault: Fault, sentence: str) -> None:
    with ScriptedServer(always=lambda _asked: fault) as server, pytest.raises(EngineError, match=sentence):
        load_test(server.url, None, wanted(timeout_s=0.5), out=tmp_path)


def test_a_server_that_dies_midway_leaves_a_partial_result_that_decides_nothing(tmp_path: Path) -> None:
    def until_it_dies(_asked: Asked) -> None:
        if len(server.asked) == 20:
            server.loop.call_soon_threadsafe(server.over.set)

    with ScriptedServer(always=until_it_dies) as server:
        found = load_test(server.url, None, wanted(rate=60.0, seconds=2.0), out=tmp_path)
    assert "nobody answers any more" in found.partial and found.verdict == "inconclusive"
    measured = found.results[0].measured
    assert 15 <= measured.answered <= 25 and measured.lost >= 8
    assert measured.kept[0].verdict == "inconclusive"
    assert LoadResult.load(tmp_path / "load.json") == found
    assert "Partial" in (tmp_path / "load.html").read_text()


def test_a_key_that_is_withdrawn_midway_leaves_a_partial_result(tmp_path: Path) -> None:
    gone = Fault("status", status=401, text="key expired")
    with ScriptedServer(always=lambda _asked: gone if len(server.asked) > 15 else None) as server:
        found = load_test(server.url, None, wanted(), out=tmp_path)
    assert "key expired" in found.partial and found.verdict == "inconclusive"
    assert found.results[0].measured.answered >= 14


def test_a_trace_is_asked_in_its_own_lengths_by_a_server_s_own_count(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 40 * at, "input_length": 300 + 20 * at, "output_length": 2 + at} for at in range(20)]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ScriptedServer() as server:
        found = load_test(server.url, None, wanted(rate=None, seconds=None, trace=trace), out=tmp_path / "out")
        budgets = [one.body["max_tokens"] for one in server.asked if one.body["max_tokens"] > 1]
    fitted = found.asked[0].fitted
    assert found.asked[0].law == "trace" and fitted.made == 20 and fitted.counted.startswith("estimated")
    assert sorted(budgets) == [2 + at for at in range(20)]
    measured = found.results[0].measured
    assert measured.prompt_rate is not None and measured.answered == 20
    seconds = 20 / measured.request_rate
    assert measured.prompt_rate * seconds == pytest.approx(sum(row["input_length"] for row in rows), rel=0.05)


@pytest.mark.parametrize(("objective", "code"), [("e2e-p50=60s", 0), ("e2e-p50=200ms", 1)])
def test_the_command_exits_by_its_verdict(tmp_path: Path, objective: str, code: int) -> None:
    """A second for each answer, so that a generator beside other work is within its lag; three tries all the same."""
    slow = Fault("slow", seconds=1.0)
    with ScriptedServer(lambda _body: "ok", always=lambda _asked: slow) as server:
        for attempt in range(3):
            out = tmp_path / str(attempt)
            options = [
                "--rate",
                "20/s",
                "--duration",
                "3s",
                "--arrivals",
                "constant",
                "-s",
                "math",
                "--objective",
                objective,
            ]
            done = CliRunner().invoke(app, ["loadtest", server.url, *options, "--out", str(out), "-q"])
            found = LoadResult.load(out / "load.json")
            if found.results[0].measured.validity.valid:
                break
            assert done.exit_code == 3
    assert done.exit_code == code, done.output
    assert "whole answer" in done.output and "unknown: parse" in done.output
    assert found.results[0].measured.goodput is not None
    assert found.results[0].measured.goodput.share == (1.0 if code == 0 else 0.0)


def test_a_server_without_usage_has_unknown_tokens_and_a_note(tmp_path: Path) -> None:
    objectives = (parse_objective("tpot-p95=1s"),)
    with ScriptedServer(always=lambda _asked: Fault("no_usage")) as server:
        found = load_test(server.url, None, wanted(objectives=objectives), out=tmp_path)
    measured = found.results[0].measured
    assert measured.answered == 40 and measured.token_rate is None and "tpot" not in measured.quantiles
    assert found.verdict == "inconclusive"
    assert any("sends no usage" in note for note in found.notes)


DIALECTS = {
    "vLLM's metrics": (
        {}, b'data: {"choices":[],"metrics":{"time_to_first_token_ms":30,"queue_time_ms":10,"generation_time_ms":500}}',
        {"queue": 0.01, "prefill": 0.02, "decode": 0.5},
    ),
    "llama.cpp's timings": (
        {}, b'data: {"choices":[],"timings":{"prompt_n":9,"prompt_ms":20.0,"predicted_n":3,"predicted_ms":30.0}}',
        {"prefill": 0.02, "decode": 0.03},
    ),
    "a gateway's server-timing, before and behind the stream": (
        {"Server-Timing": "parse;dur=0.4, cache;dur=1, queue;dur=12.5"},
        b": server-timing: decode;dur=812.5, validate;dur=0.25, stream;dur=3",
        {"parse": 0.0004, "cache": 0.001, "queue": 0.0125, "decode": 0.8125, "validate": 0.00025, "stream": 0.003},
    ),
    "nothing at all": ({}, b": ping", {}),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_stages_come_off_a_real_stream_in_each_dialect_and_what_is_not_told_is_unknown(dialect: str) -> None:
    from aiohttp import web

    headers, line, stages = DIALECTS[dialect]
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":null}]}\n\n'
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=piece + end + line + b"\n\ndata: [DONE]\n\n", headers=headers, content_type="text/event-stream"
        )

    async def go() -> Heard:
        served = web.Application()
        served.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(served)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", model="m") as target:
                return await target.ask(PROMPT)
        finally:
            await runner.cleanup()

    heard = asyncio.run(go())
    assert not heard.lost and heard.stages == stages and heard.tokens is None


def test_some_lost_requests_count_against_the_tail(tmp_path: Path) -> None:
    with ScriptedServer(always=lambda asked: Fault("cut", after=1) if len(server.asked) % 4 == 0 else None) as server:
        found = load_test(server.url, None, wanted(rate=80.0), out=tmp_path)
    measured = found.results[0].measured
    assert measured.lost >= 18 and not found.partial
    p95 = measured.at("ttft", 0.95)
    assert p95 is not None and p95.value is None
    assert found.verdict != "pass"


def test_a_limit_holds_requests_back_and_their_wait_counts(tmp_path: Path) -> None:
    """A server that takes 0.1 s each, asked 20 times a second, two at a time: it keeps up with 20 and no more."""
    slow = Fault("slow", seconds=0.1)
    with ScriptedServer(always=lambda _asked: slow) as server:
        found = load_test(server.url, None, wanted(rate=20.0, seconds=1.5, limits=(1,)), out=tmp_path)
        assert server.most_at_once == 1
    measured = found.results[0].measured
    last = measured.at("e2e", 0.99)
    assert last is not None and last.value is not None and last.value >= 1.2, "30 of 0.1 s in turn, the last due at 1.5"
    assert measured.pace is not None and measured.pace < 0.8
    assert found.policies[0].arm


def test_two_arms_see_the_same_requests_in_turns(tmp_path: Path) -> None:
    slow = Fault("slow", seconds=0.06)
    with ScriptedServer() as first, ScriptedServer(always=lambda _asked: slow) as second:
        found = load_test(first.url, second.url, wanted(rate=20.0, seconds=1.6, blocks=8), out=tmp_path)
        texts = [
            [one.body["messages"] for one in server.asked if one.body["max_tokens"] > 1] for server in (first, second)
        ]
    assert texts[0] == texts[1] and len(texts[0]) == 32
    ratio = next(one for one in found.pairs if one.latency == "e2e").ratios[0]
    assert ratio.blocks == 8 and ratio.low is not None and ratio.low > 1


def test_a_finished_test_is_not_asked_again_and_gives_the_same_result(tmp_path: Path) -> None:
    with ScriptedServer() as server:
        first = load_test(server.url, None, wanted(sweep=(60.0,), blocks=2), out=tmp_path)
        asked = len(server.asked)
        again = load_test(server.url, None, wanted(sweep=(60.0,), blocks=2), out=tmp_path)
        assert len(server.asked) == asked
    assert again == first and again.digest == first.digest
