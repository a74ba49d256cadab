"""The gateway's benchmark measures what it says: its mock, its client, its floor, on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import _gateway_endurance as endurance
from benchmarks import _gateway_proxies as proxies
from benchmarks import _gateway_speed as speed
from benchmarks._gateway_client import Door, Line, closed_loop, hang_up, said
from benchmarks._gateway_mock import CONTENT, SCHEMA
from benchmarks._gateway_processes import Running, Unfit, mock

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: the benchmark refuses it")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Running]:
    with mock() as running:
        yield running


@pytest.fixture(scope="module")
def bare(upstream: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[proxies.Standing]:
    with proxies.bare(upstream.port, tmp_path_factory.mktemp("bare")) as standing:
        yield standing


def test_the_mocks_answer_keeps_the_schema_that_is_asked_for():
    import jsonschema_rs

    assert jsonschema_rs.is_valid(SCHEMA, json.loads(CONTENT)) and 700 < len(CONTENT) < 1300


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_the_same_by_itself_and_through_the_floor(upstream, bare, stream):
    async def both():
        doors = (Door("direct", upstream.port), bare.door)
        lines = [Line(door.port) for door in doors]
        answers = [await line.ask(door.request(stream=stream)) for line, door in zip(lines, doors, strict=True)]
        await hang_up(lines)
        return answers

    for answer in asyncio.run(both()):
        assert answer.good and said(answer.raw) == CONTENT
        assert answer.began < answer.first <= answer.ended


def test_added_time_is_taken_pair_by_pair(upstream, bare):
    direct = Door("direct", upstream.port)
    times = asyncio.run(speed.latency([direct, bare.door], 2, 3))
    assert {name: len(found) for name, found in times.items()} == {"direct": 6, "bare": 6}
    assert speed.added({"direct": [1.0, 2.0], "slow": [1.5, 2.5]}, "slow").p50 == 500.0


def test_another_answer_than_the_mocks_stops_the_measurement(upstream):
    lost = Door("lost", upstream.port)
    with pytest.raises(Unfit, match="lost gave another answer"):
        asyncio.run(speed.latency([Wrong(lost.name, lost.port)], 1, 1))


class Wrong(Door):
    """Asks for something else."""

    def request(self, order="", *, stream=False, session="", schema=True):
        return b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_pace_counts_good_answers_and_processor_time(upstream, bare):
    found = asyncio.run(speed.pace([(bare.door, bare.running)], 8, 0.3, 1))["bare"]
    assert found.per_s > 0 and found.bad == 0 and found.p50_ms <= found.p99_ms


def test_a_closed_loop_counts_what_failed(upstream):
    load = asyncio.run(closed_loop(Door("direct", upstream.port), [Wrong("wrong", 0).request()], 2, 0.1))
    assert load.bad == load.asked > 0 and not load.times and "200 OK" in load.example


def test_the_mock_tells_when_a_client_left(upstream):
    found = asyncio.run(endurance.disconnects(Door("direct", upstream.port), upstream.port, 2))
    assert all(len(seconds) == 2 and min(seconds) >= 0 for seconds in found.values())
    assert set(found) == {"in prefill", "in mid-stream", "non-streamed"}


def test_a_connection_that_is_used_again_is_left_in_its_own_stream(upstream):
    async def leave() -> list[str]:
        door, line, watch = Door("direct", upstream.port), Line(upstream.port), Line(upstream.port)
        await line.ask(door.request())
        await line.until_content(door.request("!drip 77", stream=True))
        await hang_up([line])
        left = (await watch.ask(b"GET /left HTTP/1.1\r\nHost: localhost\r\n\r\n")).raw
        here = (await watch.ask(b"GET /here HTTP/1.1\r\nHost: localhost\r\n\r\n")).raw
        await hang_up([watch])
        return [name for name, at in (("left", left), ("here", here)) if b"!drip 77" in at]

    assert asyncio.run(leave()) == ["left"]


def test_idle_connections_are_held_and_memory_is_read(upstream, bare):
    held = asyncio.run(endurance.idle(bare.door, bare.running, 50, 0.2))
    assert held.alive == held.connections == 50
    grown = asyncio.run(endurance.memory(bare.door, bare.running, 100, 40, lambda _said: None, rest_s=0.01))
    assert len(grown.rss) == 11 and min(grown.rss) > 0 and grown.bad == 0 and grown.aborted == 10


def test_litellm_is_pinned_to_one_version(tmp_path: Path):
    assert proxies.litellm_version().count(".") == 2
