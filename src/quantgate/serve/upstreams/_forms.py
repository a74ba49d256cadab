"""The form that a request's answer is held to while it is written, where its schema can be compiled to token masks.

Content by ``response_format``; a call that must come, as the object that the model writes it as. What may be either a
call or text is free here, and held by the checks alone.
"""

from __future__ import annotations

from typing import Any

from quantgate.engines._sampling import Mask
from quantgate.errors import SchemaRefused
from quantgate.serve import Body
from quantgate.serve.upstreams._local_ask import Asked

SCHEMAS = ("json_schema", "json_object")
SHARED = ("$defs", "definitions")  # where the references of a schema point to


class Forms:
    """Masks over one tokenizer's tokens; whatever has none is left to the checks."""

    def __init__(self, tokenizer: Any) -> None:
        from quantgate.guard import admission, masks

        self._admit, self._vocabulary = admission.admit, masks.vocabulary(tokenizer)

    def mask(self, body: Body, wanted: Asked) -> Mask | None:
        """None: free text, or a schema that cannot be compiled."""
        form = body.get("response_format") or {}
        if wanted.must:
            schema = call_schema([tool for tool in wanted.tools if tool["name"] in wanted.must])
            form = {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}
        elif wanted.tools or form.get("type") not in SCHEMAS:
            return None
        try:
            contract = self._admit({"messages": body["messages"], "response_format": form})
        except SchemaRefused:  # the gateway admits a request before it asks anybody; a call's schema is made here
            return None
        found: Mask | None = self._vocabulary.mask(contract)
        return found


def call_schema(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """JSON Schema of one call of one of the tools.

    >>> call_schema([{"name": "add", "parameters": {"type": "object"}}])["anyOf"][0]["properties"]["name"]
    {'const': 'add'}
    """
    shared: dict[str, Any] = {}
    calls = []
    for tool in tools:
        parameters = dict(tool.get("parameters") or {"type": "object"})
        for key in SHARED:  # a reference is read from the root
            shared.setdefault(key, {}).update(parameters.pop(key, {}))
        properties = {"name": {"const": tool["name"]}, "arguments": parameters}
        calls.append({"type": "object", "properties": properties, "required": ["name", "arguments"],
                      "additionalProperties": False})  # fmt: skip
    return {**{key: found for key, found in shared.items() if found}, "anyOf": calls}
