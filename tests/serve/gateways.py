"""Gateways for tests: two arms over scripted upstreams, and settings in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantgate.guard.admission import admit
from quantgate.serve import Arm, Caller, Choice, Exchange, Request
from quantgate.serve.app import Gateway
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.settings import Limits, RoutePolicy, Settings
from quantgate.serve.upstreams.http import HttpUpstream

BASELINE = Arm("BF16", "sha256:" + "b" * 64, "baseline")
CANARY = Arm("W4A16", "sha256:" + "c" * 64, "canary")


@dataclass
class Fixed:
    """Always the same variant."""

    choice: Choice

    def choose(self, request: Request) -> Choice:
        return self.choice

    def models(self) -> list[Mapping[str, Any]]:
        return [{"id": "demo", "object": "model", "created": 0, "owned_by": "quantgate"}]

    def arms(self) -> list[Arm]:
        return [self.choice.arm, *([self.choice.fallback] if self.choice.fallback else [])]

    def trouble(self) -> str | None:
        return None


class Sessions:
    def name(self, body: Mapping[str, Any], headers: Mapping[str, str], caller: Caller, id: str) -> tuple[str, bool]:
        return headers.get("x-session-id", id), "x-session-id" in headers


@dataclass
class Kept:
    """A sink that keeps all."""

    exchanges: list[Exchange] = field(default_factory=list)

    def put(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


def settings_of(
    variant: ScriptedUpstream, baseline: ScriptedUpstream | None = None, policy: RoutePolicy = RoutePolicy(), **more: Any
) -> Settings:
    """The variant is the canary, ``baseline`` its fallback."""
    upstreams = {CANARY.name: HttpUpstream(variant.url, "scripted")}
    if baseline is not None:
        upstreams[BASELINE.name] = HttpUpstream(baseline.url, "scripted")
    choice = Choice(CANARY, "canary", 0.5, 3, fallback=BASELINE if baseline is not None else None)
    given: dict[str, Any] = {"sink": Kept(), "limits": Limits(grace_s=5.0), "target": "demo"} | more
    return Settings(upstreams, Fixed(choice), admit, Sessions(), policy=lambda _request: policy, **given)


def gateway_of(*upstreams: ScriptedUpstream, policy: RoutePolicy = RoutePolicy(), **more: Any) -> Gateway:
    return Gateway(settings_of(*upstreams, policy=policy, **more))


def kept(gateway: Gateway) -> list[Exchange]:
    """All exchanges so far."""
    sink = gateway.settings.sink
    assert isinstance(sink, Kept)
    return sink.exchanges


def asked(text: str = "abc", **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], **more}
