"""What signals read of real exchanges: every way in which an upstream fails, whole and streamed, alone and with a
baseline that steps in."""

from __future__ import annotations

from typing import Any

import pytest
from tests.serve.gateways import PLAIN, asked, chat, gateway_of, kept, until
from tests.watch.signals.made import signal

from quantgate.serve import Exchange
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import RoutePolicy

FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "required": ["n"]}}}
BROKEN: tuple[Any, ...] = ("reset", "cut", "early_end", "malformed", "error_event", "status", "wrong_type")


def exchanges(*scripts: Script, helped: bool, policy: RoutePolicy = PLAIN, **more: Any) -> list[Exchange]:
    """Of requests to a variant that does these one after another, with a good baseline beside it or none."""
    now = [Script()]
    with (
        ScriptedUpstream(always=lambda _body: now[0]) as variant,
        ScriptedUpstream(lambda _body: '{"n": 1}') as baseline,
        Running(gateway_of(variant, baseline if helped else None, policy)) as running,
    ):
        found = kept(running.gateway)
        waited: list[Script] = []
        for now[0] in scripts:
            chat(running, asked(**more))
            waited.append(now[0])
            until(lambda: len(found) == len(waited))
        return found


def read(name: str, exchange: Exchange) -> float | None:
    return signal(name).read(exchange, [])


@pytest.mark.parametrize("helped", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_variant_that_does_not_answer_is_an_error_also_where_the_baseline_helped(stream: bool, helped: bool) -> None:
    found = exchanges(*(Script(kind, after=1) for kind in BROKEN), helped=helped, stream=stream)
    for kind, one in zip(BROKEN, found, strict=True):
        unfinished = stream and one.faults and read("guard_failure", one) == 1.0
        assert read("error", one) == 1.0 or unfinished, kind
        assert read("validation_failure", one) is None, kind


@pytest.mark.parametrize("stream", [False, True])
def test_a_good_answer_is_good_in_every_respect(stream: bool) -> None:
    good = Script(text='{"n": 12345678901234567890123456789012345}')
    (found,) = exchanges(good, helped=True, stream=stream, response_format=FORMAT)
    bad = {name: read(name, found) for name in ("error", "validation_failure", "repair", "disconnect", "cut_off")}
    assert set(bad.values()) == {0.0}
    assert read("end_to_end", found) == found.total_s > 0
    assert (read("ttft", found) is not None) is stream and (read("per_token", found) is not None) is stream
    assert read("output_length", found) == found.answer_tokens


@pytest.mark.parametrize("policy", ["passthrough", "holdback", "window", "buffer", None])
@pytest.mark.parametrize("helped", [False, True])
def test_an_answer_that_breaks_its_schema_is_a_failure_and_no_error(policy: Any, helped: bool) -> None:
    route = RoutePolicy(stream=policy) if policy else PLAIN
    bad = Script(text="no JSON at all")
    (found,) = exchanges(bad, helped=helped, policy=route, stream=policy is not None, response_format=FORMAT)
    assert read("validation_failure", found) == 1.0 and read("error", found) == 0.0


def test_a_repaired_answer_is_a_failure_and_a_repair() -> None:
    (found,) = exchanges(Script(text='```json\n{"n": 1}\n```'), helped=True, response_format=FORMAT)
    assert (read("validation_failure", found), read("repair", found), read("error", found)) == (1.0, 1.0, 0.0)
