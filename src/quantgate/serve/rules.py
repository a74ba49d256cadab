"""Features of a request: which rule of a policy fits it. The first that fits wins.

A request that a rule placed is ``pinned``: chosen, not drawn, so it is part of no comparison of variants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from quantgate.serve import Request
from quantgate.serve_config import When

BYTES_A_TOKEN = 4  # of a body: a rule asks whether a prompt is long, not how long to the token


class Ruled(Protocol):
    @property
    def when(self) -> When: ...


R = TypeVar("R", bound=Ruled)


class Fits:
    """One ``when``, made ready once."""

    def __init__(self, when: When) -> None:
        self.when = when
        self._model = re.compile(when.model) if when.model is not None else None
        self._headers = tuple((name, re.compile(text)) for name, text in when.headers.items())

    def __call__(self, request: Request) -> bool:
        when, body = self.when, request.body
        tokens = request.size / BYTES_A_TOKEN
        return (
            (when.route is None or when.route == request.route)
            and (self._model is None or self._model.fullmatch(str(body.get("model") or "")) is not None)
            and (when.structured is None or when.structured == _structured(body))
            and (when.tools is None or when.tools == bool(body.get("tools")))
            and (when.tool is None or when.tool in _tools(body))
            and (when.stream is None or when.stream == request.stream)
            and (when.prompt_over is None or tokens > when.prompt_over)
            and (when.prompt_under is None or tokens < when.prompt_under)
            and (not when.keys or request.caller.key in when.keys)
            and all(pattern.fullmatch(request.headers.get(name, "")) for name, pattern in self._headers)
        )


class FirstFit(Generic[R]):
    """Rules in their order."""

    def __init__(self, rules: Sequence[R]) -> None:
        self._rules = tuple((Fits(rule.when), rule) for rule in rules)

    def of(self, request: Request) -> R | None:
        return next((rule for fits, rule in self._rules if fits(request)), None)


def _structured(body: Mapping[str, object]) -> bool:
    asked = body.get("response_format")
    return isinstance(asked, Mapping) and asked.get("type") in ("json_schema", "json_object")


def _tools(body: Mapping[str, object]) -> set[str]:
    offered = body.get("tools")
    found = [one.get("function") for one in offered if isinstance(one, Mapping)] if isinstance(offered, list) else []
    return {str(one.get("name")) for one in found if isinstance(one, Mapping)}
