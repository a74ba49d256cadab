"""A request of the Responses API -> a chat body. Raises Refused, 400, with the key of the request as it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quantgate.serve import Body
from quantgate.serve.refusals import bad

SAME = (
    "model", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty",
    "frequency_penalty", "parallel_tool_calls", "metadata", "user", "service_tier", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention",
)  # fmt: skip
READ = ("input", "instructions", "text", "tools", "tool_choice", "max_output_tokens", "top_logprobs", "include",
        "reasoning", "truncation", "background", "n")  # fmt: skip
IGNORED = ("store", "stream_options")  # nothing is stored, and no event is obfuscated, whatever they say
LOGPROBS = "message.output_text.logprobs"
UNSUPPORTED = "unsupported_parameter"
STORED = ("previous_response_id", "conversation")
NAMES = (  # of the chat's keys, in the request as it came
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("max_completion_tokens", "max_output_tokens"),
    ("messages", "input"),
)


def named(param: str | None) -> str | None:
    """The key of a response request that a key of its chat was made of, as near as can be told.

    >>> named("response_format.json_schema.schema"), named("messages[3].content"), named("top_p")
    ('text.format.schema', 'input', 'top_p')
    """
    for chat, own in NAMES:
        if param is not None and param.startswith(chat):
            return own if own == "input" else own + param[len(chat) :]
    return param


def to_chat(body: Body) -> Body:
    """The chat that a response request asks for."""
    for key, value in body.items():
        if value is not None and key not in SAME and key not in READ and key not in IGNORED:
            raise _unsupported(key)
    chat: Body = {key: body[key] for key in SAME if body.get(key) is not None}
    chat["messages"] = _messages(body)
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if chat.get("stream"):
        chat["stream_options"] = {"include_usage": True}  # the last event tells it
    _text(body, chat)
    _tools(body, chat)
    _logprobs(body, chat)
    _refuse(body)
    effort = _object(body, "reasoning").get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    return chat


def _unsupported(key: str) -> Exception:
    if key in STORED:
        return bad(key, f"{key}: this gateway stores no responses; send the whole conversation as 'input'", UNSUPPORTED)
    return bad(key, f"{key}: this gateway does not know it for /v1/responses; leave it out", UNSUPPORTED)


def _refuse(body: Body) -> None:
    """What would change the answer, and cannot be had by way of a chat."""
    if body.get("truncation") not in (None, "disabled"):
        raise bad("truncation", "truncation: only 'disabled' is possible; shorten the input yourself", UNSUPPORTED)
    if body.get("background"):
        raise bad("background", "background: answers are given at once; leave it out", UNSUPPORTED)
    if body.get("n") not in (None, 1):
        raise bad("n", "n: a response is one answer; ask several times", UNSUPPORTED)


def _object(body: Body, key: str) -> Mapping[str, Any]:
    found = body.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise bad(key, f"{key}: expected an object")
    return found


def _text(body: Body, chat: Body) -> None:
    told = _object(body, "text")
    if told.get("verbosity") is not None:
        chat["verbosity"] = told["verbosity"]
    form = told.get("format")
    if form is None:
        return
    if not isinstance(form, Mapping):
        raise bad("text.format", "text.format: expected an object with a type")
    if form.get("type") == "json_schema":
        inner = {key: form[key] for key in ("name", "description", "schema", "strict") if form.get(key) is not None}
        chat["response_format"] = {"type": "json_schema", "json_schema": inner}
    elif form.get("type") != "text":
        chat["response_format"] = dict(form)


def _tools(body: Body, chat: Body) -> None:
    """Flat functions become nested ones; tools that OpenAI runs itself do not exist here."""
    tools = body.get("tools")
    if tools is None and body.get("tool_choice") is None:
        return
    if tools is not None and not isinstance(tools, list):
        raise bad("tools", "tools: expected a list")
    made = []
    for at, tool in enumerate(tools or ()):
        where = f"tools[{at}]"
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            raise bad(f"{where}.type", f"{where}.type: expected 'function'; other tools do not run here", UNSUPPORTED)
        inner = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
        made.append({"type": "function", "function": inner})
    if made:
        chat["tools"] = made
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        _choice(choice, chat)
    elif choice is not None:
        chat["tool_choice"] = choice


def _choice(choice: Mapping[str, Any], chat: Body) -> None:
    kind = choice.get("type")
    if kind == "function":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        names = [one.get("name") for one in choice["tools"] if isinstance(one, Mapping)]
        chat["tools"] = [tool for tool in chat.get("tools", ()) if tool["function"].get("name") in names]
        chat["tool_choice"] = choice.get("mode", "auto")
        if not chat["tools"]:
            raise bad("tool_choice.tools", "tool_choice.tools: none of them is among 'tools'")
    else:
        raise bad("tool_choice.type", "tool_choice.type: expected 'function' or 'allowed_tools'", UNSUPPORTED)


def _logprobs(body: Body, chat: Body) -> None:
    include = body.get("include") or []
    if not isinstance(include, list):
        raise bad("include", "include: expected a list of texts")
    if LOGPROBS in include or body.get("top_logprobs"):
        chat["logprobs"], chat["top_logprobs"] = True, body.get("top_logprobs") or 0


def _messages(body: Body) -> list[Body]:
    given, instructions = body.get("input"), body.get("instructions")
    messages: list[Body] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise bad("instructions", "instructions: expected a text")
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise bad("input", "input: expected a text or a list of items", "missing_required_parameter")
    for at, item in enumerate(given):
        where = f"input[{at}]"
        if not isinstance(item, Mapping):
            raise bad(where, f"{where}: expected an object with a type")
        kind = item.get("type", "message")
        read = ITEMS.get(kind) if isinstance(kind, str) else None
        if read is None:
            raise bad(f"{where}.type", f"{where}.type: expected one of {', '.join(ITEMS)}", UNSUPPORTED)
        read(item, messages, where)
    return messages


def _message(item: Mapping[str, Any], messages: list[Body], where: str) -> None:
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        raise bad(f"{where}.role", f"{where}.role: expected user, assistant, system or developer")
    if isinstance(content, str):
        messages.append({"role": role, "content": content})
        return
    if not isinstance(content, list) or not content:
        raise bad(f"{where}.content", f"{where}.content: expected a text or a list of parts")
    parts = [_part(part, f"{where}.content[{at}]") for at, part in enumerate(content)]
    if role == "assistant" and all(part["type"] == "refusal" for part in parts):
        messages.append({"role": role, "content": None, "refusal": "".join(part["refusal"] for part in parts)})
        return
    alone = len(parts) == 1 and parts[0]["type"] == "text"
    messages.append({"role": role, "content": parts[0]["text"] if alone else parts})


def _part(part: Any, where: str) -> Body:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("input_text", "output_text", "text") and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "refusal", "refusal": part["refusal"]}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise bad(where, f"{where}: expected input_text, output_text, refusal or input_image with a URL", UNSUPPORTED)


def _call(item: Mapping[str, Any], messages: list[Body], where: str) -> None:
    """Calls that follow each other are one turn of the assistant, together with what it said before them."""
    for key in ("call_id", "name", "arguments"):
        if not isinstance(item.get(key), str):
            raise bad(f"{where}.{key}", f"{where}.{key}: expected a text")
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant" or "refusal" in messages[-1]:
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _output(item: Mapping[str, Any], messages: list[Body], where: str) -> None:
    output = item.get("output")
    if isinstance(output, list):
        parts = [_part(part, f"{where}.output[{at}]") for at, part in enumerate(output)]
        if any(part["type"] != "text" for part in parts):
            raise bad(f"{where}.output", f"{where}.output: a result is text alone here", UNSUPPORTED)
        output = "".join(part["text"] for part in parts)
    if not isinstance(output, str) or not isinstance(item.get("call_id"), str):
        raise bad(where, f"{where}: expected call_id and output, both texts")
    messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})


def _forgotten(_item: Mapping[str, Any], _messages: list[Body], _where: str) -> None:
    """What a model thought before its answer is not shown to it again: a chat has no place for it."""


ITEMS: Mapping[str, Callable[[Mapping[str, Any], list[Body], str], None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "reasoning": _forgotten,
}
