"""What a server wants otherwise than OpenAI: the fields that constrain an answer, and old names.

Each function takes the copy that goes upstream and changes it in place. ``openai`` and ``vllm`` and ``sglang`` read
``response_format`` as OpenAI writes it (vLLM since 0.12, which took its ``guided_*`` fields away); the servers of
llama.cpp take a schema as ``{"type": "json_object", "schema": ...}``, both the C++ one and llama-cpp-python's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

Name = Literal["openai", "vllm", "llamacpp", "sglang"]
Patch = Callable[[dict[str, Any]], None]


def openai(body: dict[str, Any]) -> None:
    """As it is."""


def llamacpp(body: dict[str, Any]) -> None:
    """
    >>> body = {"max_completion_tokens": 5, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}
    >>> llamacpp(body); body
    {'response_format': {'type': 'json_object', 'schema': {}}, 'max_tokens': 5}
    """
    most = body.pop("max_completion_tokens", None)
    if most is not None:
        body["max_tokens"] = most
    asked = body.get("response_format")
    if isinstance(asked, Mapping) and asked.get("type") == "json_schema":
        body["response_format"] = {"type": "json_object", "schema": (asked.get("json_schema") or {}).get("schema", {})}
    if any(message.get("role") == "developer" for message in body.get("messages", ())):
        body["messages"] = [
            {**message, "role": "system"} if message.get("role") == "developer" else message
            for message in body["messages"]
        ]


def vllm(body: dict[str, Any]) -> None:
    """As it is, but for an extension that vLLM would prefer to OpenAI's own field: only the guarded one may stand."""
    if body.get("response_format") is not None or body.get("tools"):
        body.pop("structured_outputs", None)


PATCHES: Mapping[str, Patch] = {"openai": openai, "vllm": vllm, "llamacpp": llamacpp, "sglang": openai}
