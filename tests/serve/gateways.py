"""Gateways for tests: two arms over scripted upstreams, and settings in one line."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from quantgate.guard.admission import Admission
from quantgate.guard.limits import Limits as SchemaLimits
from quantgate.serve import Arm, Caller, Choice, Exchange, Request
from quantgate.serve.app import Gateway
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import Limits, RoutePolicy, Settings
from quantgate.serve.upstreams.http import HttpUpstream

BASELINE = Arm("BF16", "sha256:" + "b" * 64, "baseline")
PLAIN = RoutePolicy()
PATIENT = Admission(SchemaLimits(compile_s=60.0))  # a busy machine refuses no schema
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
    variant: ScriptedUpstream,
    baseline: ScriptedUpstream | None = None,
    policy: RoutePolicy = PLAIN,
    **more: Any,
) -> Settings:
    """The variant is the canary, ``baseline`` its fallback."""
    upstreams = {CANARY.name: HttpUpstream(variant.url, "scripted")}
    if baseline is not None:
        upstreams[BASELINE.name] = HttpUpstream(baseline.url, "scripted")
    choice = Choice(CANARY, "canary", 0.5, 3, fallback=BASELINE if baseline is not None else None)
    given: dict[str, Any] = {"sink": Kept(), "limits": Limits(grace_s=5.0), "target": "demo", "router": Fixed(choice)}
    return Settings(upstreams, admit=PATIENT.admit, sessions=Sessions(), policy=lambda _request: policy, **given | more)


def gateway_of(
    variant: ScriptedUpstream, baseline: ScriptedUpstream | None = None, policy: RoutePolicy = PLAIN, **more: Any
) -> Gateway:
    return Gateway(settings_of(variant, baseline, policy, **more))


def kept(gateway: Gateway) -> list[Exchange]:
    """All exchanges so far."""
    sink = gateway.settings.sink
    assert isinstance(sink, Kept)
    return sink.exchanges


def asked(text: str = "abc", **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], **more}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # lower case
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.body["error"])

    @property
    def data(self) -> list[str]:
        """What the events of a stream hold, ``[DONE]`` with them."""
        return [line[6:] for line in self.raw.decode().split("\n") if line.startswith("data: ")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(one) for one in self.data if one != "[DONE]"]

    @property
    def done(self) -> bool:
        return self.data[-1:] == ["[DONE]"]

    @property
    def text(self) -> str:
        """The content of a stream, or of a whole answer."""
        if self.headers["content-type"].startswith("text/event-stream"):
            deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ())]
            return "".join(delta.get("content") or "" for delta in deltas)
        return str(self.body["choices"][0]["message"]["content"])

    @property
    def finishes(self) -> list[str]:
        ends = [choice["finish_reason"] for chunk in self.chunks for choice in chunk.get("choices", ())]
        return [one for one in ends if one]


def call(running: Running, path: str, body: Any = None, *, method: str = "", headers: Mapping[str, str] = {}) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {"content-type": "application/json", **headers} if data is not None else dict(headers)
    try:
        connection.request(method or ("GET" if data is None else "POST"), path, data, given)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def chat(running: Running, body: Mapping[str, Any], **headers: str) -> Answer:
    return call(
        running, "/v1/chat/completions", body, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


@contextmanager
def streaming(running: Running, body: Mapping[str, Any]) -> Iterator[http.client.HTTPResponse]:
    """A stream that is read line by line; the client leaves at the end of the block."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
    data = json.dumps({**body, "stream": True}).encode()
    connection.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def line_with(response: http.client.HTTPResponse, what: bytes) -> list[bytes]:
    """The lines up to the first that holds it. Raises EOFError where none does."""
    lines = []
    while line := response.readline():
        lines.append(line)
        if what in line:
            return lines
    raise EOFError(f"{what!r} is in none of {lines}")


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What it says as soon as it says anything. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.005)
    raise TimeoutError("it never came to pass")
