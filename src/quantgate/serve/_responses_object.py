"""The object of the Responses API: what every response holds, and one made of a whole chat completion."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from quantgate.serve import Body

ECHOED: Mapping[str, Any] = {  # what a response repeats of its request, and what stands where that says nothing
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": None,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}  # by why a chat ended


def response(head: Mapping[str, Any], body: Body, status: str, output: Sequence[Body]) -> Body:
    """A response; ``head`` is of the chat: its id, created and model."""
    text = body.get("text") or {}
    made = {key: otherwise if body.get(key) is None else body[key] for key, otherwise in ECHOED.items()}
    return {
        "id": own_id("resp", head),
        "object": "response",
        "created_at": float(head.get("created") or int(time.time())),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": str(head.get("model") or body.get("model") or ""),
        "output": list(output),
        "previous_response_id": None,
        "store": False,
        "usage": None,
        **made,
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "text": {**text, "format": _format(text.get("format"))},
    }


def _tool(tool: Mapping[str, Any]) -> Body:
    """A function as a response repeats it: every key is there."""
    return {"description": None, "parameters": None, "strict": None, **tool}


def _format(form: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return form or {"type": "text"}


def own_id(kind: str, head: Mapping[str, Any], index: int | None = None) -> str:
    """An id of the same answer in another form.

    >>> own_id("msg", {"id": "chatcmpl-12ab"}, 0)
    'msg_12ab_0'
    """
    core = str(head.get("id") or "unknown").removeprefix("chatcmpl-").removeprefix("chatcmpl_")
    return f"{kind}_{core}" if index is None else f"{kind}_{core}_{index}"


def close(made: Body, finish: str | None, usage: Any) -> Body:
    """The status that an answer ended with, and what it took."""
    reason = INCOMPLETE.get(finish or "")
    made["status"] = "incomplete" if reason else "completed"
    made["incomplete_details"] = {"reason": reason} if reason else None
    if not reason:
        made["completed_at"] = float(int(time.time()))
    made["usage"] = used(usage)
    return made


def used(usage: Any) -> Body | None:
    """Tokens by the names of this API; None where the upstream tells none."""
    if not isinstance(usage, Mapping) or not isinstance(usage.get("prompt_tokens"), int):
        return None
    asked, said = usage["prompt_tokens"], int(usage.get("completion_tokens") or 0)
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": thought or 0},
        "total_tokens": asked + said,
    }


def message_item(id: str, content: Sequence[Body], status: str) -> Body:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": list(content)}


def text_part(text: str, logprobs: Sequence[Body] = ()) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def refusal_part(text: str) -> Body:
    return {"type": "refusal", "refusal": text}


def call_item(id: str, call: Mapping[str, Any], status: str) -> Body:
    function = call.get("function") or {}
    return {
        "id": id,
        "type": "function_call",
        "status": status,
        "call_id": str(call.get("id") or id),
        "name": str(function.get("name") or ""),
        "arguments": str(function.get("arguments") or ""),
    }


def rows(logprobs: Any) -> list[Body]:
    """Log probabilities of a chat's content, as this API has them: every one with bytes."""
    found = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    return [{**_row(one), "top_logprobs": [_row(top) for top in one.get("top_logprobs") or ()]} for one in found or ()]


def _row(one: Mapping[str, Any]) -> Body:
    return {"token": one.get("token", ""), "logprob": one.get("logprob", 0.0), "bytes": one.get("bytes") or []}


def from_chat(completion: Body, body: Body) -> Body:
    """The response that a chat completion is; ``body`` is the request as it came."""
    choice = (completion.get("choices") or [{}])[0]
    message, finish = choice.get("message") or {}, choice.get("finish_reason")
    status = "incomplete" if finish in INCOMPLETE else "completed"
    parts, output = [], list[Body]()
    if message.get("content"):
        parts.append(text_part(message["content"], rows(choice.get("logprobs"))))
    if message.get("refusal"):
        parts.append(refusal_part(message["refusal"]))
    if parts or not message.get("tool_calls"):
        output.append(message_item(own_id("msg", completion, 0), parts or [text_part("")], status))
    for call in message.get("tool_calls") or ():
        output.append(call_item(own_id("fc", completion, len(output)), call, status))
    return close(response(completion, body, status, output), finish, completion.get("usage"))
