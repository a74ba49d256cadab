"""What is sent for a prompt, and what a reply becomes. Nothing here waits or sends.

A call of a tool is text to the scorers: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, after whatever
the model said beside it. Arguments stand in it as the model wrote them, broken JSON included.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from quantgate.engines import Completion, Failure, Prompt
from quantgate.engines._openai_stream import Reply

CHAT, PLAIN = "/chat/completions", "/completions"
OWN = {  # keys of a request that the engine writes itself
    "model", "messages", "prompt", "stream", "stream_options", "tools", "response_format", "stop", "max_tokens",
    "max_completion_tokens", "temperature", "top_p", "seed", "logprobs", "top_logprobs", "echo", "n",
}  # fmt: skip
TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
STOPPED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call")
CUT = ("length", "max_tokens", "model_length")
FILTERED = ("content_filter",)
Schemas = Literal["json_schema", "json_object", "none"]


def path_of(prompt: Prompt) -> str:
    return PLAIN if prompt.plain else CHAT


def request_of(prompt: Prompt, *, schemas: Schemas, budget_key: str = "max_tokens") -> dict[str, Any]:
    """The body for a prompt, without the model and how it is sampled."""
    body: dict[str, Any] = {budget_key: prompt.max_tokens}
    if prompt.plain:
        body["prompt"] = plain_text(prompt)
        body["max_tokens"] = body.pop(budget_key)
    else:
        body["messages"] = messages_of(prompt)
    if prompt.tools and not prompt.plain:
        body["tools"] = [{"type": "function", "function": tool} for tool in prompt.tools]
    if prompt.answer_schema and schemas != "none":
        body["response_format"] = _format(prompt.answer_schema, schemas)
    if prompt.stop:
        body["stop"] = list(prompt.stop)
    return body


def plain_text(prompt: Prompt) -> str:
    return "".join(content for _, content in prompt.turns)


def _format(schema: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
    if schemas == "json_object":
        return {"type": "json_object", "schema": schema}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """The turns as messages; where tools are offered, earlier calls and their results are bound by ids."""
    messages: list[dict[str, Any]] = []
    waiting: list[str] = []  # ids of calls whose results have not come
    count = 0
    for at, (role, content) in enumerate(prompt.turns):
        if role == "tool":
            count += not waiting
            messages.append(
                {"role": role, "content": content, "tool_call_id": waiting.pop(0) if waiting else _id(count)}
            )
            continue
        answered = at + 1 < len(prompt.turns) and prompt.turns[at + 1][0] == "tool"
        calls = calls_in(content) if role == "assistant" and prompt.tools and answered else []
        if not calls:
            messages.append({"role": role, "content": content})
            continue
        waiting = [_id(count + step) for step in range(1, len(calls) + 1)]
        count += len(calls)
        said = TAGGED.sub("", content).strip() if TAGGED.search(content) else ""
        messages.append(
            {
                "role": role,
                "content": said or None,
                "tool_calls": [
                    {"id": name, "type": "function", "function": call}
                    for name, call in zip(waiting, calls, strict=True)
                ],
            }
        )
    return messages


def as_messages(turns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def _id(count: int) -> str:
    """Nine letters and digits: the strictest servers take exactly that."""
    return f"call{count:05d}"


def calls_in(text: str) -> list[dict[str, str]]:
    """Name and arguments (as text) of every call that an assistant's turn is; none where it is plain talk.

    >>> calls_in('{"name": "add", "arguments": {"a": 1}}')
    [{'name': 'add', 'arguments': '{"a": 1}'}]
    >>> calls_in("Let me see.")
    []
    """
    found: list[dict[str, str]] = []
    for part in TAGGED.findall(text) or [text]:
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            return []
        if isinstance(value, dict) and "tool_calls" in value:
            value = value["tool_calls"]
        for one in value if isinstance(value, list) else [value]:
            call = one.get("function", one) if isinstance(one, dict) else None
            if not isinstance(call, dict) or not isinstance(call.get("name"), str):
                return []
            arguments = call.get("arguments", {})
            written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            found.append({"name": call["name"], "arguments": written})
    return found


def text_of(reply: Reply) -> str:
    """What the model said and called, as one text for the scorers."""
    parts = [part for part in (reply.text or reply.refusal,) if part]
    for call in reply.calls:
        name, arguments = json.dumps(call["name"], ensure_ascii=False), _object(call["arguments"])
        parts.append(f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>')
    return "\n".join(parts).encode(errors="replace").decode()  # half a surrogate pair is JSON, and no text


def _object(written: str) -> str:
    """Arguments as they were written where that is a JSON object, else the text itself as JSON."""
    try:
        fits = isinstance(json.loads(written), dict)
    except (ValueError, RecursionError):
        fits = False
    return written if fits else json.dumps(written, ensure_ascii=False)


def completion_of(reply: Reply, latency_s: float, ttft_s: float | None) -> Completion | Failure:
    """A reply as the engines' record; Failure for an end that is none of the known ones."""
    finish = finish_of(reply.finish or "")
    if finish is None:
        return Failure(reason=f"the server ended the answer with '{reply.finish}'", lost=True)
    prefill_s, decode_s = stages(reply.timings or {})
    return Completion(
        text=text_of(reply),
        tokens=count(reply.usage, "completion_tokens"),
        prompt_tokens=count(reply.usage, "prompt_tokens"),
        finish=finish,
        prefill_s=prefill_s,
        decode_s=decode_s,
        latency_s=latency_s,
        ttft_s=ttft_s,
    )


def finish_of(reason: str) -> Literal["stop", "length", "filtered"] | None:
    if reason in FILTERED:
        return "filtered"
    return "stop" if reason in STOPPED else "length" if reason in CUT else None


def count(usage: Mapping[str, Any] | None, key: str) -> int | None:
    """A number of tokens, or None: what a server does not say is not 0."""
    found = (usage or {}).get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def stages(timings: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of reading the prompt and of writing the answer, as llama.cpp (``timings``: prompt_ms, predicted_ms) and
    vLLM (``metrics``: time_to_first_token_ms without queue_time_ms, generation_time_ms) report them; else 0."""
    first = number(timings, "time_to_first_token_ms") - number(timings, "queue_time_ms")
    prefill = number(timings, "prompt_ms") or max(first, 0.0)
    decode = number(timings, "predicted_ms") or number(timings, "generation_time_ms")
    return prefill / 1e3, decode / 1e3


def number(found: Mapping[str, Any], key: str) -> float:
    value = found.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        return 0.0
    return float(value)


def sampling_of(settings: Mapping[str, float]) -> dict[str, float]:
    """Greedy with a fixed seed, unless the user asks for something else."""
    return {"temperature": 0.0, "seed": 0} | dict(settings)


def sampling_text(settings: Mapping[str, float]) -> str:
    """``greedy``, or every setting by its name."""
    chosen = sampling_of(settings)
    if chosen["temperature"] == 0:
        return "greedy"
    return " ".join(f"{name}={value:g}" for name, value in sorted(chosen.items()))


def known(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:8]) + (" ..." if len(names) > 8 else "")
