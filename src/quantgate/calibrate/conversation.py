"""One line of traffic as a conversation: messages, the tools that were offered, the form that was asked for.

Read are OpenAI chat requests (``{"messages": [...], "tools": [...], "response_format": {...}}``), whole exchanges as
a gateway keeps them (``{"request": {...}, "response": {"choices": [...]}}``), ``{"prompt": ..., "completion"?: ...}``
and a bare JSON string, which is a prompt. What is none of these is an error, and nothing is guessed: a picture among
the parts of a message, a role nobody knows and a stream of deltas are told by name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from quantgate.errors import DataError
from quantgate.records import digest_of

Turns = tuple[tuple[str, str], ...]  # (role, content), may end with an assistant turn
ROLES = ("system", "user", "assistant", "tool")
SAME_ROLE = {"developer": "system", "function": "tool"}  # newer and older names of the interface
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
MEND = "mend or remove the line"


@dataclass(frozen=True)
class Conversation:
    """``messages`` as chat templates take them: role, content (text), and where there are any ``tool_calls`` (with
    arguments as an object), ``tool_call_id`` and ``name``. ``tools`` and ``response_format`` are as they were sent."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    response_format: dict[str, Any] | None = None

    @property
    def turns(self) -> Turns:
        """Role and text of each message; a call of a tool is text, as JSON on a line of its own."""
        return tuple((one["role"], spoken(one)) for one in self.messages)

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions offered or called, each once, in order."""
        offered = [one["function"]["name"] for one in self.tools]
        called = [call["function"]["name"] for one in self.messages for call in one.get("tool_calls", ())]
        return tuple(dict.fromkeys(offered + called))

    @property
    def answer(self) -> dict[str, Any] | None:
        """The last message, where it is the assistant's."""
        return self.messages[-1] if self.messages[-1]["role"] == "assistant" else None

    @property
    def plain(self) -> bool:
        """Nothing but turns: no tools, no calls, no form asked for."""
        bare = all(set(one) <= {"role", "content"} for one in self.messages)
        return bare and not self.tools and self.response_format is None

    def body(self) -> dict[str, Any]:
        """One line of traffic that reads back as this conversation."""
        more = {"tools": list(self.tools)} if self.tools else {}
        form = {} if self.response_format is None else {"response_format": self.response_format}
        return {"messages": list(self.messages), **more, **form}

    @property
    def digest(self) -> str:
        """Of a conversation that is nothing but turns, the digest over them."""
        return digest_of(self.turns) if self.plain else digest_of(self.body())


def spoken(message: dict[str, Any]) -> str:
    """What a message says: its content, and every call of a tool as a line of JSON."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join([*([message["content"]] if message["content"] or not calls else []), *calls])


def conversation(row: Any) -> Conversation:
    """The conversation of one line. Raises DataError with what is wrong, without saying where."""
    if isinstance(row, str):
        return Conversation(({"role": "user", "content": row},))
    if isinstance(row, dict) and isinstance(row.get("request"), dict):
        return _exchange(row)
    return _request(row)


def _exchange(row: dict[str, Any]) -> Conversation:
    """The request, and the first answer where there is one; an error in its place is no answer."""
    asked, response = _request(row["request"]), row.get("response")
    if response is None or (isinstance(response, dict) and response.get("error") is not None):
        return asked
    choices = response.get("choices") if isinstance(response, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        raise DataError(f"'response' holds no 'choices'; {MEND}")
    if "delta" in first:
        raise DataError(f"'response' is one piece of a stream; join its pieces to a message, or {MEND}")
    if isinstance(first.get("text"), str):
        answer = {"role": "assistant", "content": first["text"]}
    else:
        answer = _message(first.get("message"))
    return Conversation((*asked.messages, answer), asked.tools, asked.response_format)


def _request(row: Any) -> Conversation:
    if isinstance(row, dict) and isinstance(row.get("prompt"), str):
        answer = row.get("completion")
        if answer is not None and not isinstance(answer, str):
            raise DataError(f"'completion' is not text; {MEND}")
        said = [] if answer is None else [{"role": "assistant", "content": answer}]
        return Conversation(({"role": "user", "content": row["prompt"]}, *said))
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(f"expected 'messages' (a list) or 'prompt' (text); {MEND}")
    read = tuple(_message(one) for one in messages)
    if read[0]["role"] == "assistant":
        raise DataError(f"begins with an answer, so nothing was asked; {MEND}")
    form = row.get("response_format")
    if form is not None and (not isinstance(form, dict) or not isinstance(form.get("type"), str)):
        raise DataError(f"'response_format' has no type; {MEND}")
    return Conversation(read, _tools(row), None if form is None or form["type"] == "text" else form)


def _message(message: Any) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, dict) else None
    role = SAME_ROLE.get(role, role) if isinstance(role, str) else None
    if role not in ROLES:
        raise DataError(f"every message needs a role ({', '.join(ROLES)}) and text as content")
    calls = _calls(message)
    content = message.get("content")
    if content is None and role == "assistant":
        content = message.get("refusal") or ("" if calls else None)
    read: dict[str, Any] = {"role": role, "content": _text(content)}
    if calls:
        read["tool_calls"] = calls
    return read | {key: message[key] for key in ("tool_call_id", "name") if isinstance(message.get(key), str)}


def _text(content: Any) -> str:
    if isinstance(content, list) and content:
        parts = []
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            text = part.get(TEXT_PARTS.get(kind, "")) if isinstance(part, dict) and isinstance(kind, str) else None
            if not isinstance(text, str):
                named = isinstance(kind, str) and re.fullmatch(r"[a-z_]{1,24}", kind)  # never what a line may hide
                what = f"a part of type '{kind}'" if named else "a part of no known type"
                raise DataError(
                    f"every message needs a role ({', '.join(ROLES)}) and text as content, found {what}; {MEND}"
                )
            parts.append(text)
        return "\n".join(parts)
    if not isinstance(content, str):
        raise DataError(f"every message needs a role ({', '.join(ROLES)}) and text as content")
    return content


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Calls of tools, their arguments read from the text that the interface sends; text that is no JSON stays text."""
    given = message.get("tool_calls")
    if given is None and isinstance(message.get("function_call"), dict):
        given = [{"function": message["function_call"]}]
    if given is None:
        return []
    if not isinstance(given, list):
        raise DataError(f"'tool_calls' is not a list; {MEND}")
    calls = []
    for call in given:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise DataError(f"a call of a tool names no function; {MEND}")
        known = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        asked = {"name": name, "arguments": _arguments(function.get("arguments"))}
        calls.append({"type": "function", "function": asked, **known})
    return calls


def _arguments(given: Any) -> Any:
    if not isinstance(given, str):
        return {} if given is None else given
    try:
        read = json.loads(given)
    except json.JSONDecodeError:
        return given
    return read if isinstance(read, dict) else given


def _tools(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    given = row.get("tools")
    if given is None:
        given = [{"type": "function", "function": one} for one in row.get("functions") or []]
    if not isinstance(given, list):
        raise DataError(f"'tools' is not a list; {MEND}")
    tools = []
    for one in given:
        function = one.get("function") if isinstance(one, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise DataError(f"a tool has no function with a name; {MEND}")
        tools.append({"type": "function", "function": function})
    return tuple(tools)
