"""Gateways out of a configuration, over scripted upstreams, and a client of them."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantgate.records import parse
from quantgate.serve.open import Around, ServedGateway, open_gateway
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve_config import ServeConfig

HELLO = [{"role": "user", "content": "hello"}]


def config_of(data: Path, upstreams: dict[str, ScriptedUpstream], **keys: Any) -> ServeConfig:
    variants = {
        name: {"endpoint": {"url": one.url, "model": "scripted"}, "weights": f"sha256:{name}"}
        for name, one in upstreams.items()
    }
    given = {"target": "laptop", "data": str(data / "data"), "variants": variants}
    return parse(ServeConfig, given | keys, where="serve.yaml")


@contextmanager
def served(config: ServeConfig, **around: Any) -> Iterator[tuple[ServedGateway, Client]]:
    gateway = open_gateway(config, Around({}, **around))
    with Running(gateway) as running:
        yield gateway, Client(running.port)


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, method: str, path: str, body: Any = None, *, key: str = "", **headers: str) -> Answer:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            sent["authorization"] = f"Bearer {key}"
        if body is not None:
            sent["content-type"] = "application/json"
        try:
            link.request(method, path, None if body is None else json.dumps(body), sent)
            answer = link.getresponse()
            return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
        finally:
            link.close()

    def chat(self, *, key: str = "", model: str = "laptop", session: str = "", **more: Any) -> Answer:
        named = {"x_session_id": session} if session else {}
        return self("POST", "/v1/chat/completions", {"model": model, "messages": HELLO, **more}, key=key, **named)


class Answer:
    def __init__(self, status: int, raw: bytes, headers: dict[str, str]) -> None:
        self.status, self.raw, self.headers = status, raw, headers

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def variant(self) -> str:
        return self.headers.get("x-quantgate-variant-name", "")


def until(true: Any, *, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)
