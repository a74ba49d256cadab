"""A gateway on loopback for real clients: real parts on a real port, in front of an upstream that is scripted."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from quantgate.guard.admission import Admission
from quantgate.release import Live, Variant
from quantgate.serve import Caller, openapi
from quantgate.serve.app import Gateway
from quantgate.serve.routing import CohortRouter
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.sessions import SessionNames
from quantgate.serve.settings import RoutePolicy, Settings
from quantgate.serve.upstreams.http import HttpUpstream

KEY, TARGET = "qg_clients", "fleet"


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


class Serving:
    """A gateway under uvicorn in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        import uvicorn

        self.app = Gateway(settings)
        self.config = uvicorn.Config(
            self.app, loop="uvloop", http="httptools", log_level="error", access_log=False, timeout_keep_alive=30
        )
        self.server = uvicorn.Server(self.config)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self.socket.getsockname()[1])
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.server.serve(sockets=[self.socket]))

    def __enter__(self) -> Self:
        self.thread.start()
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b" 200 " in line.recv(4096).split(b"\r\n")[0]
        return self

    def __exit__(self, *_raised: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


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
        admit=Admission().admit,
        sessions=SessionNames(b"a secret of the tests"),
        keys=keys,
        policy=lambda _request: kept,
        openapi=openapi.document,
    )


@pytest.fixture(scope="module")
def gateway() -> Iterator[Reached]:
    with ScriptedUpstream(always=said) as upstream, Serving(settings_of(upstream, keys=OneKey())) as served:
        yield Reached(served.port, upstream)
