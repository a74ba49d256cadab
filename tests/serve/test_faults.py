"""Everything that an upstream does wrong, through a real gateway: what the client gets, and who answers instead."""

from __future__ import annotations

import json
import time

import pytest
from tests.serve.gateways import asked, call, chat, gateway_of, kept, line_with, streaming, until

from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import RoutePolicy

# what breaks before anything of an answer has come, and the code that a caller reads where nobody stands in
BEFORE = {
    "reset": "upstream_cut",
    "status": "upstream_error",
    "wrong_type": "upstream_malformed",
    "malformed": "upstream_malformed",
    "error_event": "upstream_error",
    "cut": "upstream_cut",
    "early_end": "upstream_cut",
}
STALL = RoutePolicy(budgets_ms={"prefill": 150, "decode": 150}, keep_alive_s=None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", BEFORE)
def test_what_breaks_before_an_answer_is_answered_by_the_baseline(kind: str, stream: bool) -> None:
    script = Script(kind, after=0)  # type: ignore[arg-type]
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        ScriptedUpstream(lambda _body: "from the baseline") as baseline,
        Running(gateway_of(variant, baseline)) as running,
    ):
        answer = chat(running, asked(stream=stream))
        assert (answer.status, answer.text) == (200, "from the baseline")
        assert answer.headers["x-quantgate-variant-name"] == "BF16"
        exchange = until(lambda: kept(running.gateway))[-1]
        assert (exchange.variant, exchange.answered_by, exchange.error) == ("W4A16", "BF16", "")
        assert b"quantgate_fallbacks_total{cause=" in call(running, "/metrics").raw


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", BEFORE)
def test_what_breaks_before_an_answer_is_one_typed_error_where_nobody_stands_in(kind: str, stream: bool) -> None:
    script = Script(kind, after=0)  # type: ignore[arg-type]
    with ScriptedUpstream(always=lambda _body: script) as variant, Running(gateway_of(variant)) as running:
        answer = chat(running, asked(stream=stream))
        assert (answer.status, answer.error["code"]) == (502, BEFORE[kind])
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert until(lambda: kept(running.gateway))[-1].error == BEFORE[kind]


@pytest.mark.parametrize("kind", ["cut", "early_end", "malformed", "error_event"])
def test_what_breaks_after_the_first_words_ends_with_an_error_and_never_changes_hands(kind: str) -> None:
    script = Script(kind, after=3, held=True, text="a long answer that is cut")  # type: ignore[arg-type]
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        ScriptedUpstream() as baseline,
        Running(gateway_of(variant, baseline)) as running,
        streaming(running, asked()) as response,
    ):
        begun = line_with(response, b'"content":"a lo"')
        variant.go_on()
        rest = response.read()
        error = json.loads(rest.strip().rpartition(b"data: ")[2])["error"]
        assert (response.status, error["code"]) == (200, BEFORE[kind])
        assert b"[DONE]" not in rest and not any(b'"finish_reason":"' in line for line in [*begun, rest])
        assert baseline.asked == []
        exchange = until(lambda: kept(running.gateway))[-1]
        assert (exchange.status, exchange.error) == (200, BEFORE[kind])


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_is_not_there_is_answered_by_the_baseline(stream: bool) -> None:
    with ScriptedUpstream() as variant, ScriptedUpstream(lambda _body: "instead") as baseline:
        gateway = gateway_of(variant, baseline)
        variant.stop()
        with Running(gateway) as running:
            assert chat(running, asked(stream=stream)).text == "instead"


@pytest.mark.parametrize("stream", [False, True])
def test_both_down_is_one_typed_error_that_names_both(stream: bool) -> None:
    with ScriptedUpstream() as variant, ScriptedUpstream() as baseline:
        gateway = gateway_of(variant, baseline)
        variant.stop()
        baseline.stop()
        with Running(gateway) as running:
            answer = chat(running, asked(stream=stream))
            assert (answer.status, answer.error["code"]) == (503, "all_upstreams_failed")
            assert "W4A16" in answer.error["message"] and "BF16" in answer.error["message"]
            assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stall_in_prefill_beyond_its_budget_is_answered_by_the_baseline(stream: bool) -> None:
    with (
        ScriptedUpstream(always=lambda _body: Script("stall")) as variant,
        ScriptedUpstream(lambda _body: "in time") as baseline,
        Running(gateway_of(variant, baseline, policy=STALL)) as running,
    ):
        answer = chat(running, asked(stream=stream))
        assert (answer.status, answer.text) == (200, "in time")
        assert variant.wait(lambda upstream: len(upstream.aborts) == 1)
        assert until(lambda: kept(running.gateway))[-1].broke == ("prefill" if stream else "decode")


@pytest.mark.parametrize(("stream", "stage"), [(False, "decode"), (True, "prefill")])
def test_a_stall_tells_the_stage_that_broke_its_budget(stream: bool, stage: str) -> None:
    with (
        ScriptedUpstream(always=lambda _body: Script("stall")) as variant,
        Running(gateway_of(variant, policy=STALL)) as running,
    ):
        answer = chat(running, asked(stream=stream))
        assert (answer.status, answer.error["code"]) == (504, "stage_timeout")
        assert answer.error["message"].startswith(stage)
        until(lambda: kept(running.gateway))
        page = call(running, "/metrics").raw.decode()
        assert f'quantgate_stage_budget_broken_total{{cohort="canary",stage="{stage}",variant="W4A16"}} 1.0' in page


def test_a_stall_after_the_first_words_ends_with_the_stage_in_an_error_event() -> None:
    script = Script("stall_midway", after=3, text="some words, and then nothing")
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        ScriptedUpstream() as baseline,
        Running(gateway_of(variant, baseline, policy=STALL)) as running,
    ):
        answer = chat(running, asked(stream=True))
        assert answer.chunks[-1]["error"]["code"] == "stage_timeout" and not answer.done
        assert baseline.asked == [] and variant.wait(lambda upstream: len(upstream.aborts) == 1)


def test_a_client_that_says_how_long_it_waits_is_answered_by_then() -> None:
    with ScriptedUpstream(always=lambda _body: Script("stall")) as variant, Running(gateway_of(variant)) as running:
        begun = time.monotonic()
        answer = chat(running, asked(), x_stainless_read_timeout="0.2")
        assert (answer.status, answer.error["code"]) == (504, "deadline")
        assert time.monotonic() - begun < 20
        assert variant.wait(lambda upstream: len(upstream.aborts) == 1)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_the_callers_own_doing_is_told_and_asked_of_nobody_else(status: int) -> None:
    script = Script("status", status=status)
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        ScriptedUpstream() as baseline,
        Running(gateway_of(variant, baseline)) as running,
    ):
        answer = chat(running, asked())
        assert (answer.status, answer.error["message"]) == (status, "scripted fault")
        assert answer.headers["x-should-retry"] == "false" and baseline.asked == []


def test_a_connection_that_the_server_closed_meanwhile_costs_nothing() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        assert chat(running, asked()).status == 200
        variant.next(Script("reset"))
        assert chat(running, asked("again")).status == 200
        assert len(variant.asked) == 3


@pytest.mark.parametrize("kind", ["no_done", "early_end"])
def test_an_end_without_its_mark_is_no_end(kind: str) -> None:
    script = Script(kind, after=99, text="all of it, and yet")  # type: ignore[arg-type]
    with ScriptedUpstream(always=lambda _body: script) as variant, Running(gateway_of(variant)) as running:
        answer = chat(running, asked(stream=True))
        assert answer.chunks[-1]["error"]["code"] == "upstream_cut"
        assert not answer.done and not answer.finishes


def test_an_answer_without_choices_is_no_answer() -> None:
    with (
        ScriptedUpstream(always=lambda _body: Script("no_choices")) as variant,
        Running(gateway_of(variant)) as running,
    ):
        assert chat(running, asked()).error["code"] == "upstream_malformed"


def test_a_stream_without_end_ends_at_the_limit_of_an_answer() -> None:
    from quantgate.serve.settings import Limits

    limits = Limits(answer_chars=500, grace_s=5)
    script = Script("endless")
    with (
        ScriptedUpstream(always=lambda _body: script) as variant,
        Running(gateway_of(variant, limits=limits)) as running,
    ):
        answer = chat(running, asked(stream=True))
        assert answer.chunks[-1]["error"]["code"] == "invalid_answer" and not answer.done
        assert len(answer.text) <= 500 and variant.wait(lambda upstream: len(upstream.aborts) == 1)
