"""Rules of a policy: features of a request -> the variant that answers it. The first that fits wins.

A request that a rule placed is ``pinned``: chosen, not drawn, so it is part of no comparison of variants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator, model_validator

from quantgate.records import Record
from quantgate.serve import Request

BYTES_A_TOKEN = 4  # of a body: a rule asks whether a prompt is long, not how long to the token


class When(Record):
    """Features of a request; all that are written must fit, and nothing written fits every request."""

    route: Literal["chat", "completions", "responses"] | None = Field(default=None, description="by its path")
    model: str | None = Field(default=None, description="the model's name in the request, as a regular expression")
    structured: bool | None = Field(
        default=None, description="whether it asks for JSON: a schema, or response_format json_object"
    )
    tools: bool | None = Field(default=None, description="whether it offers tools")
    tool: str | None = Field(default=None, description="a tool that it offers, by name")
    stream: bool | None = Field(default=None, description="whether the answer is to be streamed")
    prompt_over: int | None = Field(
        default=None, ge=0, description="tokens that the prompt has more of, at 4 bytes of the request a token"
    )
    prompt_under: int | None = Field(default=None, ge=1, description="tokens that it has fewer of")
    keys: tuple[str, ...] = Field(default=(), description="ids of the API keys, such as k_1a2b3c4d, any of them")
    headers: dict[str, str] = Field(
        default={}, description="headers of the request, each with a regular expression that fits its whole value"
    )

    @field_validator("headers")
    @classmethod
    def _lower(cls, value: dict[str, str]) -> dict[str, str]:
        return {name.lower(): _pattern(text) for name, text in value.items()}

    @field_validator("model")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        return value if value is None else _pattern(value)

    @model_validator(mode="after")
    def _fits_something(self) -> When:
        if self.prompt_over is not None and self.prompt_under is not None and self.prompt_over >= self.prompt_under:
            raise ValueError(f"no prompt is over {self.prompt_over} and under {self.prompt_under} tokens")
        if "authorization" in self.headers:
            raise ValueError("names the header 'authorization', which holds a secret; name the key's id under 'keys'")
        return self

    @cached_property
    def _patterns(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        return tuple((name, re.compile(text)) for name, text in self.headers.items())

    @cached_property
    def _model(self) -> re.Pattern[str] | None:
        return re.compile(self.model) if self.model is not None else None

    def fits(self, request: Request) -> bool:
        body, tokens = request.body, request.size / BYTES_A_TOKEN
        return (
            (self.route is None or self.route == request.route)
            and (self._model is None or self._model.fullmatch(str(body.get("model") or "")) is not None)
            and (self.structured is None or self.structured == _structured(body))
            and (self.tools is None or self.tools == bool(body.get("tools")))
            and (self.tool is None or self.tool in _tools(body))
            and (self.stream is None or self.stream == request.stream)
            and (self.prompt_over is None or tokens > self.prompt_over)
            and (self.prompt_under is None or tokens < self.prompt_under)
            and (not self.keys or request.caller.key in self.keys)
            and all(pattern.fullmatch(request.headers.get(name, "")) for name, pattern in self._patterns)
        )


class PolicyRule(Record):
    """Which variant answers the requests that fit."""

    name: str = Field(description="it stands in every exchange that the rule placed", min_length=1, max_length=64)
    when: When = Field(description="features of the request")
    variant: str = Field(description="baseline, stable or canary, or the name of a variant", min_length=1)


def first(rules: Sequence[PolicyRule], request: Request) -> PolicyRule | None:
    return next((rule for rule in rules if rule.when.fits(request)), None)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as broken:
        raise ValueError(f"'{text}' is no regular expression ({broken})") from None
    return text


def _structured(body: Mapping[str, object]) -> bool:
    asked = body.get("response_format")
    return isinstance(asked, Mapping) and asked.get("type") in ("json_schema", "json_object")


def _tools(body: Mapping[str, object]) -> set[str]:
    offered = body.get("tools")
    found = [one.get("function") for one in offered if isinstance(one, Mapping)] if isinstance(offered, list) else []
    return {str(one.get("name")) for one in found if isinstance(one, Mapping)}
