"""What crosses HTTP: events out of bytes however they were cut, clocks and their header, errors and their retries."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import SchemaRefused
from quantgate.serve import STAGES, LedgerClosed, OverBudget, UpstreamFault
from quantgate.serve.refusals import Refused, StageTimeout, bad, of
from quantgate.serve.stages import Clock
from quantgate.serve.upstreams.events import LONGEST, Events
from quantgate.serve.upstreams.http import stages_of

BODIES = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({min(place, len(data)) for place in places})
    return [data[begin:end] for begin, end in zip([0, *at], [*at, len(data)], strict=True)]


@given(BODIES, st.lists(st.integers(0, 400), max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_stream_reads_alike_however_it_was_cut(
    bodies: list[dict[str, str]], places: list[int], end: str, ping: bool
) -> None:
    lines = [f"data: {json.dumps(body)}{end}{end}" for body in bodies]
    text = (f": ping{end}{end}" if ping else "").join([*lines, f"data: [DONE]{end}{end}"])
    events, found = Events(), []
    for piece in cut(text.encode(), places):
        found += events.feed(piece)
    assert ([chunk.body for chunk in found], events.done, events.fault) == (bodies, True, None)


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: [1]\n\n", b"data: \xff\n\n", b"data:" + b" " * (LONGEST + 1)])
def test_what_is_no_chunk_is_a_fault_behind_the_good_ones(data: bytes) -> None:
    events = Events()
    assert [chunk.body for chunk in events.feed(b'data: {"a": 1}\n\n')] == [{"a": 1}]
    assert events.feed(data) == []
    assert events.fault is not None and events.fault.kind == "malformed" and not events.done


def test_chunks_that_came_together_say_so() -> None:
    chunks = Events().feed(b'data: {"a": 1}\n\ndata: {"a": 2}\n\ndata: {"a"')
    assert [chunk.more for chunk in chunks] == [True, False]


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (bad("n", "n: no"), 400, "invalid_value", {b"x-should-retry": b"false"}),
        (SchemaRefused("no", param="tools"), 400, "invalid_schema", {b"x-should-retry": b"false"}),
        (OverBudget("no", retry_after_s=0.25), 429, "budget_exceeded",
         {b"x-should-retry": b"false", b"retry-after": b"1", b"retry-after-ms": b"250"}),
        (LedgerClosed("no"), 503, "ledger_unreachable", {b"x-should-retry": b"false"}),
        (UpstreamFault("refused", "no"), 502, "upstream_unreachable", {}),
        (UpstreamFault("overloaded", "no"), 503, "overloaded", {b"retry-after": b"1", b"retry-after-ms": b"1000"}),
        (UpstreamFault("status", "no", status=429), 429, "upstream_error", {}),
        (UpstreamFault("status", "no", status=401), 502, "upstream_error", {}),
        (StageTimeout("prefill", 0.1), 504, "stage_timeout", {}),
    ],
)  # fmt: skip
def test_every_error_has_its_status_and_says_whether_to_ask_again(
    error: Exception, status: int, code: str, headers: dict[bytes, bytes]
) -> None:
    refused = of(error)
    assert (refused.status, refused.code, dict(refused.headers())) == (status, code, headers)


def test_what_nobody_foresaw_is_told_without_its_text() -> None:
    assert "secret" not in json.dumps(of(RuntimeError("secret")).body())


def test_an_upstreams_own_error_keeps_its_words() -> None:
    body = {"error": {"message": "too long", "type": "t", "param": "messages", "code": "context_length_exceeded"}}
    refused = of(UpstreamFault("status", "no", status=400, body=body))
    assert refused.body() == body


def test_a_clock_books_each_second_once_and_names_every_stage() -> None:
    clock = Clock({}, None, started=100.0)
    clock._since = 100.0
    for stage in ("context", "queue", "upstream", "validate"):
        clock.enter(stage)
    clock.told({"prefill": 0.25, "decode": 0.5, "nonsense": 9.0})
    header = clock.header(clock._since)
    assert [part.split(";")[0].strip() for part in header.split(",")][: len(STAGES)] == list(STAGES)
    assert "cache;desc=untold" in header and "prefill;dur=250.000" in header and "decode;dur=500.000" in header


@pytest.mark.parametrize("stage", ["queue", "prefill"])
def test_a_stage_that_takes_too_long_is_named(stage: str) -> None:
    async def overdue() -> Refused:
        loop = asyncio.get_running_loop()
        clock = Clock({stage: 20}, None, started=loop.time())
        try:
            async with clock:
                clock.enter(stage)
                await asyncio.Event().wait()
        except TimeoutError:
            assert clock.broke == ""
            return clock.late()
        raise AssertionError("no stage has ended")

    refused = asyncio.run(overdue())
    assert isinstance(refused, StageTimeout) and refused.stage == stage


def test_a_second_upstream_has_its_budget_whole() -> None:
    clock = Clock({"prefill": 50}, None, started=0.0)
    clock.enter("prefill")
    clock.spent["prefill"] = 0.049
    clock.again()
    now = clock.enter("prefill")
    due = clock.deadline("prefill", now)
    assert due is not None and due - now > 0.04


@pytest.mark.parametrize(
    ("body", "stages"),
    [
        ({}, {}),
        ({"timings": {"prompt_ms": 10, "predicted_ms": 20.0}}, {"prefill": 0.01, "decode": 0.02}),
        ({"metrics": {"queue_time_ms": 5, "generation_time_ms": 7}}, {"queue": 0.005, "decode": 0.007}),
        ({"timings": {"prompt_ms": "fast", "predicted_ms": -1}}, {}),
        ({"quantgate": {"stages": {"cache": 0.5}}}, {"cache": 0.5}),
        ({"timings": None, "metrics": []}, {}),
    ],
)
def test_what_servers_tell_of_their_stages_is_read_and_what_is_none_is_not(
    body: dict[str, Any], stages: dict[str, float]
) -> None:
    assert stages_of(body) == stages
