"""A client that leaves: the upstream learns of it at once, wherever the request is, and what was used is charged."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable

import pytest
from tests.serve.gateways import asked, call, chat, gateway_of, kept, until

from quantgate.serve.scripted import Abort, Script, ScriptedUpstream
from quantgate.serve.server import Running

GENEROUS_S = 5.0  # of a machine under load; benchmarks/gateway.py measures the time itself
WHEN = {
    "prefill": (Script("stall"), True),
    "mid-stream": (Script("stall_midway", after=3, text="some words and no more"), True),
    "while it streams": (Script("endless"), True),
    "whole": (Script("stall"), False),
}


def leave(running: Running, stream: bool, when: Callable[[http.client.HTTPConnection], object]) -> float:
    """Ask, wait for ``when``, hang up; the moment."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    body = json.dumps(asked(stream=stream)).encode()
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    when(connection)
    left = time.monotonic()
    if connection.sock is not None:
        connection.sock.close()
    connection.close()
    return left


@pytest.mark.parametrize("when", WHEN)
def test_the_upstream_learns_at_once_that_the_client_left(when: str) -> None:
    script, stream = WHEN[when]
    with ScriptedUpstream(always=lambda _body: script) as variant, Running(gateway_of(variant)) as running:

        def begun(connection: http.client.HTTPConnection) -> None:
            assert variant.wait(lambda upstream: len(upstream.asked) == 1)
            if stream and script.kind != "stall":
                with connection.getresponse() as response:
                    while b'"content"' not in response.readline():
                        pass

        left = leave(running, stream, begun)
        assert variant.wait(lambda upstream: len(upstream.aborts) == 1)
        abort: Abort = variant.aborts[0]
        assert 0 <= abort.at - left < GENEROUS_S
        exchange = until(lambda: kept(running.gateway))[-1]
        assert exchange.disconnected and exchange.finish == ""
        assert running.gateway.in_flight == 0
        page = call(running, "/metrics").raw.decode()
        assert 'quantgate_disconnects_total{cohort="canary",variant="W4A16"} 1.0' in page


def test_a_client_that_waits_for_its_turn_and_leaves_takes_no_place() -> None:
    from quantgate.serve.settings import Limits

    limits = Limits(per_arm=1, grace_s=5)
    with (
        ScriptedUpstream(always=lambda body: Script("stall") if "first" in str(body) else None) as variant,
        Running(gateway_of(variant, limits=limits)) as running,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        data = json.dumps(asked("first")).encode()
        connection.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
        assert variant.wait(lambda upstream: len(upstream.asked) == 1)
        leave(running, False, lambda _one: until(lambda: running.gateway.in_flight == 2))
        until(lambda: running.gateway.in_flight == 1)
        connection.close()
        assert chat(running, asked("third")).status == 200
        assert len(variant.asked) == 2


def test_a_client_that_leaves_within_its_own_body_is_no_request() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", "1000")
        connection.endheaders(b'{"model": "demo"')
        until(lambda: running.gateway.in_flight == 1)
        connection.close()
        until(lambda: running.gateway.in_flight == 0)
        assert variant.asked == [] and kept(running.gateway) == []
