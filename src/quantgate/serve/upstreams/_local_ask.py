"""A chat body -> what is asked of an engine in this process, or a refusal that names the key.

The rule for keys: what changes the meaning of the answer is done, or refused; what does not is ignored. An unknown key
is refused, for it may change it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantgate.engines._sampling import Sampling
from quantgate.serve import Body, UpstreamFault

DONE = {
    "messages", "tools", "tool_choice", "response_format", "temperature", "top_p", "top_k", "min_p", "seed",
    "logit_bias", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "stop", "max_tokens",
    "max_completion_tokens", "n", "modalities",
}  # fmt: skip
IGNORED = {
    "model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "prompt_cache_key",
    "prompt_cache_retention", "safety_identifier", "prediction", "parallel_tool_calls", "reasoning_effort", "verbosity",
}  # fmt: skip
ROLES = {"developer": "system", "function": "tool"}  # by the names that templates know


@dataclass(frozen=True)
class Asked:
    """One request. ``turns`` are those of ``engines.Prompt``: a call is an assistant turn of its own, as JSON."""

    turns: tuple[tuple[str, str], ...]
    tools: tuple[dict[str, Any], ...]  # {"name", "description", "parameters"}; none where none may be called
    must: tuple[str, ...]  # of these tools one must be called; none: it is the model's to choose
    max_tokens: int | None
    stop: tuple[str, ...]
    sampling: Sampling


def asked(body: Body) -> Asked:
    """Raises UpstreamFault with status 400."""
    for key, value in body.items():
        if value is not None and key not in DONE and key not in IGNORED:
            raise refused(key, f"{key}: the engine of this process does not know it; leave it out", UNSUPPORTED)
    if body.get("n") not in (None, 1):
        raise refused("n", "n: the engine of this process gives 1 answer; ask several times", UNSUPPORTED)
    if body.get("modalities") not in (None, ["text"]):
        raise refused("modalities", "modalities: the engine of this process writes text alone", UNSUPPORTED)
    tools, must = _tools(body)
    stop = body.get("stop") or ()
    return Asked(
        turns=tuple(turns_of(body["messages"])),
        tools=tools,
        must=must,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        sampling=_sampling(body),
    )


def _sampling(body: Body) -> Sampling:
    """Where no temperature is named, the likeliest token is taken: so the variant was judged."""
    seed = body.get("seed")
    return Sampling(
        temperature=_number(body, "temperature", 0.0, 2.0),
        top_p=_number(body, "top_p", 1.0, 1.0),
        top_k=int(_number(body, "top_k", 0.0, 1e9)),
        min_p=_number(body, "min_p", 0.0, 1.0),
        seed=None if seed is None else int(seed) % 2**63,
        bias=_bias(body.get("logit_bias") or {}),
        presence=_number(body, "presence_penalty", 0.0, 2.0, -2.0),
        frequency=_number(body, "frequency_penalty", 0.0, 2.0, -2.0),
        logprobs=int(_number(body, "top_logprobs", 0.0, 20.0)) if body.get("logprobs") else None,
    )


def _number(body: Body, key: str, otherwise: float, high: float, low: float = 0.0) -> float:
    value = body.get(key)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refused(key, f"{key}: expected a number from {low:g} to {high:g}", "invalid_value")
    return float(value)


def _bias(told: Mapping[str, Any]) -> dict[int, float]:
    try:
        return {int(token): float(by) for token, by in told.items()}
    except ValueError:
        raise refused("logit_bias", "logit_bias: expected ids of tokens and numbers", "invalid_value") from None


def _tools(body: Body) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The functions to be offered, and the names of those that one must be called of."""
    choice = body.get("tool_choice")
    if choice == "none":
        return (), ()
    found = []
    for at, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") != "function":
            raise refused(f"tools[{at}].type", f"tools[{at}].type: only functions can be called here", UNSUPPORTED)
        found.append({key: tool["function"][key] for key in SHOWN if key in tool["function"]})
    if choice == "required":
        return tuple(found), tuple(tool["name"] for tool in found)
    if isinstance(choice, Mapping):
        return tuple(found), (str((choice.get("function") or {}).get("name")),)
    return tuple(found), ()


def turns_of(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Turns of a conversation: each call stands before its own result, whatever the order of the results was."""
    found = list[tuple[str, str]]()
    waiting = dict[str, int]()  # id of a call without a result -> how many turns stand behind it, from the end
    for at, message in enumerate(messages):
        role, where = str(message["role"]), f"messages[{at}].content"
        text = _text(message.get("content") or message.get("refusal"), where)
        if role == "tool" and message.get("tool_call_id") in waiting:
            behind = waiting.pop(str(message["tool_call_id"]))
            found.insert(len(found) - behind, ("tool", text))
            waiting = {id: more + (more >= behind) for id, more in waiting.items()}
            continue
        waiting = {}
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        if text or not calls:
            found.append((ROLES.get(role, role), text))
        found += [("assistant", _call(one)) for one in calls]
        for behind, call in enumerate(reversed(message.get("tool_calls") or ())):
            waiting[str(call.get("id"))] = behind
    return found


def _call(function: Mapping[str, Any]) -> str:
    """A call as the text that the model writes it as."""
    arguments = function.get("arguments") or "{}"
    try:
        read = json.loads(arguments)
    except ValueError:
        read = arguments
    return json.dumps({"name": function.get("name"), "arguments": read}, ensure_ascii=False, separators=(",", ":"))


def _text(content: Any, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = []
    for at, part in enumerate(content):
        text = part.get("text") if part.get("type") == "text" else part.get("refusal")
        if not isinstance(text, str):
            raise refused(f"{where}[{at}]", f"{where}[{at}]: the engine of this process reads text alone", UNSUPPORTED)
        parts.append(text)
    return "".join(parts)


def refused(param: str | None, sentence: str, code: str) -> UpstreamFault:
    """What a server would answer with status 400."""
    error = {"message": sentence, "type": "invalid_request_error", "param": param, "code": code}
    return UpstreamFault("status", sentence, status=400, body={"error": error})


SHOWN = ("name", "description", "parameters")  # of a function, to the model
UNSUPPORTED = "unsupported_parameter"
