"""What a hostile upstream writes, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quantgate.serve.scripted import Script

SECRET = "WITHHELD"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
STRUCTURED: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "one", "schema": SCHEMA, "strict": True}}
}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "pay", "parameters": SCHEMA}}]}


def body_of(*choices: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A whole answer; ``more`` are keys beside its choices."""
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": list(choices)}
    return {**head, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, **more}


def choice(content: Any = "hello", *, index: Any = 0, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """``more`` are keys of the message."""
    message = {"role": "assistant", "content": content, **more}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}


def whole(body: Any, status: int = 200) -> Script:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    return Script(raw=head.encode() + raw)


def piece(delta: Mapping[str, Any], finish: Any = None, *, index: Any = 0, **more: Any) -> dict[str, Any]:
    """One chunk; ``more`` are keys of its choice."""
    one = {"index": index, "delta": dict(delta), "finish_reason": finish, **more}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [one]}


def stream_of(*events: bytes, done: bytes = b"data: [DONE]\n\n") -> Script:
    raw = b"".join(events) + done
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(raw)
    return Script(raw=head + raw)


def event(chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chunks(*given: Any) -> Script:
    return stream_of(*map(event, given))
