"""What is asked about the gateway itself: models, health, readiness, metrics, its description."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from quantgate.errors import hint
from quantgate.serve import wire
from quantgate.serve.metrics import TYPE, Metrics
from quantgate.serve.refusals import Refused
from quantgate.serve.settings import Headers, Settings

Page = tuple[int, bytes, Headers]
PAGES = ("/v1/models", "/health", "/ready", "/metrics", "/openapi.json")
PATIENCE_S = 5.0  # for an upstream to say that it is up


class Surface:
    """The pages that anybody may read, and the models, which need a key where keys are used."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics

    async def page(self, scope: wire.Scope, *, draining: bool, answers: Mapping[str, Any]) -> Page:
        """Raises Refused: 404 for a path that nobody knows, 405 with ``allow`` for a method that it does not have."""
        path, method = scope["path"], scope["method"]
        model = unquote(path.removeprefix("/v1/models/")) if path.startswith("/v1/models/") else ""
        if path in answers:
            raise _not_allowed(path, method, "POST")
        if path not in PAGES and not model:
            raise Refused(404, "not_found", f"{path[:200]}: there is no such path here{_meant(path, answers)}")
        if method not in ("GET", "HEAD"):
            raise _not_allowed(path, method, "GET, HEAD")
        if model:
            return _json(200, self._model(model))
        match path:
            case "/v1/models":
                return _json(200, {"object": "list", "data": list(self._settings.router.models())})
            case "/health":
                return _json(200, {"status": "ok"})
            case "/ready":
                return await self._ready(draining)
            case "/metrics":
                return 200, self._metrics.page(), [(b"content-type", TYPE)]
        described = self._settings.openapi
        if described is None:
            raise Refused(404, "not_found", f"{path}: this gateway was started without its description")
        return _json(200, described())

    def _model(self, name: str) -> Mapping[str, Any]:
        models = {model["id"]: model for model in self._settings.router.models()}
        if name in models:
            return models[name]
        said = f"the model '{name[:200]}' is not served here; {hint(name[:200], models)}"
        raise Refused(404, "model_not_found", said, param="model")

    async def _ready(self, draining: bool) -> Page:
        """Whether requests may come: 200, or 503 with every reason."""
        settings = self._settings
        reasons = [reason for reason in (settings.router.trouble(), settings.dead()) if reason]
        if draining:
            reasons.append("the gateway is about to end")
        if not settings.proven():
            reasons.append("the guards are not proven yet")
        arms = settings.router.arms()
        names = await asyncio.gather(*(self._up(arm.name) for arm in arms))
        reasons += [f"{arm.name}: its upstream is not up" for arm, up in zip(arms, names, strict=True) if up is None]
        told = [
            {"name": arm.name, "role": arm.role, "digest": arm.digest, "serves": up}
            for arm, up in zip(arms, names, strict=True)
        ]
        return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons, "arms": told})

    async def _up(self, name: str) -> str | None:
        upstream = self._settings.upstreams.get(name)
        if upstream is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await upstream.ready()
        except TimeoutError:
            return None


def _meant(path: str, answers: Iterable[str]) -> str:
    """
    >>> _meant("/chat/completions", ["/v1/chat/completions"])
    "; did you mean /v1/chat/completions? A client's base URL ends with /v1"
    >>> _meant("/v1/embeddings", [])
    '; /openapi.json describes those that there are'
    """
    tail = "/v1" + path.removeprefix("/v1").removeprefix("/v1")
    if tail != path and tail in (*answers, *PAGES):
        return f"; did you mean {tail}? A client's base URL ends with /v1"
    return "; /openapi.json describes those that there are"


def _json(status: int, body: Mapping[str, Any]) -> Page:
    return status, wire.dumps(body), [wire.JSON]


def _not_allowed(path: str, method: str, allow: str) -> Refused:
    said = f"{path[:200]}: {method} is not for this path; allowed: {allow}"
    return Refused(405, "method_not_allowed", said, headers=((b"allow", allow.encode()),))
