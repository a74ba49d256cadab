"""What the scripted upstream writes when it tells the truth: chat completions, chunks, error objects, HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from quantgate.serve import Body


def pieces(text: str, size: int = 4) -> list[str]:
    """
    >>> pieces("abcdef")
    ['abcd', 'ef']
    """
    return [text[at : at + size] for at in range(0, len(text), size)]


def head(body: Body) -> Body:
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": body.get("model", ""),
    }


def completion(body: Body, message: Mapping[str, Any], finish: str = "stop") -> Body:
    """A whole chat completion that holds ``message``, once for each choice that was asked for."""
    choices = [
        {"index": at, "message": dict(message), "logprobs": None, "finish_reason": finish}
        for at in range(body.get("n") or 1)
    ]
    return head(body) | {"object": "chat.completion", "choices": choices, "usage": usage(body, message)}


def usage(body: Body, message: Mapping[str, Any]) -> Body:
    """Counted as if a token had four letters."""
    prompt = max(1, len(orjson.dumps(body["messages"])) // 4)
    answer = max(1, len(orjson.dumps(message)) // 4)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def error(message: str, code: str = "") -> Body:
    return {"error": {"message": message, "type": "scripted_error", "param": None, "code": code or None}}


def http(status: int, body: Any, *, raw: bytes | None = None, retry: str = "") -> bytes:
    data = orjson.dumps(body) if raw is None else raw
    more = f"retry-after: {retry}\r\n" if retry else ""
    top = f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\n{more}content-length: {len(data)}\r\n\r\n"
    return top.encode() + data


def page() -> bytes:
    page = b"<html><body>It works!</body></html>"
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page)
