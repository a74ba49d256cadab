"""A gateway on loopback for real clients: real parts on a real port, in front of an upstream that is scripted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from quantgate.guard.admission import Admission
from quantgate.guard.limits import Limits
from quantgate.release import Live, Variant
from quantgate.serve import Caller, openapi
from quantgate.serve.app import Gateway
from quantgate.serve.routing import CohortRouter
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.sessions import SessionNames
from quantgate.serve.settings import RoutePolicy, Settings
from quantgate.serve.upstreams.http import HttpUpstream

KEY, TARGET = "qg_clients", "fleet"
PATIENT = Limits(compile_s=60.0)  # a busy machine refuses no schema


@dataclass
class OneKey:
    """The keys of a gateway with one caller."""

    caller: Caller = field(default_factory=lambda: Caller("team-a", frozenset({"use", "admin"})))

    def find(self, secret: str) -> Caller | None:
        return self.caller if secret == KEY else None


BROKEN = {"Cut": Script("cut", after=3), "Limit": Script("status", status=429), "Reset": Script("reset")}


def said(body: Mapping[str, Any]) -> Script:
    """What the upstream answers, by the last message."""
    asked = body["messages"][-1]
    text = asked.get("content")
    text = text if isinstance(text, str) else "".join(part.get("text", "") for part in text or ())
    for word, script in BROKEN.items():
        if word in text:
            return script
    if asked["role"] == "tool":
        return Script(text="It is sunny.")
    if "weather" in text and body.get("tools"):
        return call("weather", {"city": "Paris"})
    if "Call it" in text:
        return call("City", {"name": "Paris", "people": 2_100_000})
    if "city" in text:
        return Script(text='{"name": "Paris", "people": 2100000}')
    if any("Lie" in str(turn.get("content")) for turn in body["messages"]):  # in the corrective turn as well
        return Script(text='{"name": "Paris", "people": "a great many"}')
    return Script(text="Hello to you there.")


def call(name: str, arguments: Mapping[str, Any]) -> Script:
    function = {"name": name, "arguments": json.dumps(arguments)}
    called = {"id": "call_0", "type": "function", "function": function}
    return Script(message={"role": "assistant", "content": None, "tool_calls": [called]}, finish="tool_calls")


@dataclass
class Reached:
    """The way to a gateway, and the upstream behind it."""

    port: int
    upstream: ScriptedUpstream
    key: str = KEY
    model: str = TARGET

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def settings_of(upstream: ScriptedUpstream, *, policy: RoutePolicy | None = None, keys: Any = None) -> Settings:
    """The gateway's settings with one variant before a baseline, both behind the same upstream."""
    live = Live(
        target=TARGET,
        revision=3,
        baseline=Variant(name="full", artifact="sha256:" + "f" * 64, engine="none", is_baseline=True),
        stable=Variant(name="small", artifact="sha256:" + "5" * 64, engine="none"),
    )
    kept = policy or RoutePolicy()
    return Settings(
        upstreams={name: HttpUpstream(upstream.url, "scripted") for name in ("full", "small")},
        router=CohortRouter(TARGET, live, ("full", "small")),
        admit=Admission(PATIENT).admit,
        sessions=SessionNames(b"a secret of the tests"),
        keys=keys,
        policy=lambda _request: kept,
        openapi=lambda: openapi.document([TARGET], closed=True),
    )


def serving(settings: Settings) -> Running:
    return Running(Gateway(settings))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Reached]:
    with ScriptedUpstream(always=said) as upstream, serving(settings_of(upstream, keys=OneKey())) as served:
        yield Reached(served.port, upstream)
