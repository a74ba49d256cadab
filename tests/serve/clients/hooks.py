"""Hooks of schemathesis: what a JSON schema cannot say, and the gateway asks for nevertheless.

It takes 1.0 for an integer, where the gateway asks for 1; it cannot say that ``tool_choice`` names one of ``tools``,
nor that each of them has a name of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="the extra clients")


def whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list) else value


def offered(body: dict[str, Any]) -> dict[str, Any]:
    """Of well-formed tools one of each name stays, and ``tool_choice`` names one; where there is none, it goes."""
    choice: Any = body.get("tool_choice")
    tools: Any = body.get("tools")
    try:
        named = {tool["function"]["name"]: tool for tool in tools or ()}
    except (TypeError, KeyError):
        return body
    body = {**body, "tools": list(named.values())} if named else body
    chosen = isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("function"), dict)
    if not (chosen or choice in ("auto", "required")):
        return body
    if not named:
        return {key: value for key, value in body.items() if key != "tool_choice"}
    return {**body, "tool_choice": {**choice, "function": {"name": next(iter(named))}}} if chosen else body


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_body(context: Any, body: Any) -> Any:
    made = whole(body)
    return offered(made) if isinstance(made, dict) and "messages" in made else made
