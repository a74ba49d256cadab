"""What one request asks of its answer: a schema for its content, tools with schemas for their arguments.

``content``: held to the response format, unless tools are called and it is empty, or the model declines in
``refusal``. ``tool_calls``: each names a tool that was offered and has arguments that the tool's parameters allow,
whether the request said ``strict`` or not. An answer that ended by its length is never whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantgate.guard import Fault, Message, Prefix
from quantgate.guard.repair import repair
from quantgate.guard.schemas import Schema

CUT = ("length", "content_filter")
WHOLE = ("stop", "tool_calls", "function_call")  # ways to end that leave a repair something whole to mend


@dataclass(frozen=True, slots=True)
class Demands:
    """Implements ``guard.Contract``. Made by ``admission.admit``."""

    content: Schema | None = None
    tools: Mapping[str, Schema] = field(default_factory=dict)
    choice: str = "auto"  # auto, none, required
    allowed: frozenset[str] | None = None  # the only tools that may be called now; None: all
    parallel: bool = True

    @property
    def structured(self) -> bool:
        return self.content is not None or bool(self.tools)

    @property
    def checks_prefixes(self) -> bool:
        return True

    def prefix(self, tool: str | None = None) -> Prefix | Fault | None:
        if tool is None:
            return None if self.content is None else self.content.prefix("content")
        return self._offered(tool, "tool_calls") or self.tools[tool].prefix("tool_calls")

    def check(self, message: Message, finish: str | None) -> Fault | None:
        calls = message.get("tool_calls")
        if not calls and self.content is None and self.choice != "required" and "function_call" not in message:
            return None
        return self._shape(message) or self._called(calls or (), message, finish) or self._content(message, finish)

    def repair(self, message: Message, finish: str | None) -> tuple[dict[str, Any], Sequence[str]] | None:
        """Nothing is mended that was cut: there the end is missing, not only a bracket."""
        mended, names = dict(message), list[str]()
        calls = mended["tool_calls"] = _written(message.get("tool_calls"), names)
        if finish not in WHOLE or self._shape(mended) is not None:
            return None
        if "tool_calls" not in message:
            del mended["tool_calls"]
        if calls:
            mended["tool_calls"] = [self._mended_call(call, names) for call in calls]
        content = message.get("content")
        if self.content is not None and self._content(mended, finish) is not None and isinstance(content, str):
            found = repair(content, lambda text: self.content is not None and self.content.fault(text, "") is None)
            if found is not None:
                mended["content"] = found[0]
                names += found[1]
            elif calls:
                mended["content"] = None
                names.append("words_beside_calls")
        whole = bool(names) and self.check(mended, finish) is None
        return (mended, tuple(dict.fromkeys(names))) if whole else None

    def _mended_call(self, call: dict[str, Any], names: list[str]) -> dict[str, Any]:
        function = call["function"]
        schema = self.tools.get(function["name"])
        if schema is None or schema.fault(function["arguments"], "") is None:
            return call
        found = repair(function["arguments"], lambda text: schema.fault(text, "") is None)
        if found is None and not function["arguments"].strip() and schema.fault("{}", "") is None:
            found = "{}", ("empty_arguments",)
        if found is None:
            return call
        names += found[1]
        return {**call, "function": {**function, "arguments": found[0]}}

    def _offered(self, tool: str, where: str) -> Fault | None:
        if tool not in self.tools:
            return Fault("unknown_tool", where, f"no tool {tool[:64]!r} was offered")
        if self.choice == "none":
            return Fault("tool_choice", where, "a tool is called where none may be")
        if self.allowed is not None and tool not in self.allowed:
            return Fault("tool_choice", where, f"{tool[:64]!r} is called, which may not be called now")
        return None

    def _shape(self, message: Message) -> Fault | None:
        """Whether it is a message at all: the types of what is in it."""
        if not isinstance(message.get("content"), str | None) or not isinstance(message.get("refusal"), str | None):
            return Fault("malformed", "content", "the content or the refusal is not a text")
        if message.get("function_call") is not None:
            return Fault("malformed", "function_call", "a call in a form that was not asked for")
        calls = message.get("tool_calls")
        if calls is None:
            return None
        if not isinstance(calls, list):
            return Fault("malformed", "tool_calls", "the tool calls are not a list")
        seen: set[tuple[str, Any]] = set()
        for place, call in enumerate(calls):
            fault = _call_shape(call, f"tool_calls[{place}]", seen)
            if fault is not None:
                return fault
        return None

    def _called(self, calls: Sequence[Any], message: Message, finish: str | None) -> Fault | None:
        for place, call in enumerate(calls):
            where = f"tool_calls[{place}].function"
            name = call["function"]["name"]
            fault = self._offered(name, f"{where}.name") or _ended(finish, where)
            fault = fault or self.tools[name].fault(call["function"]["arguments"], f"{where}.arguments")
            if fault is not None:
                return fault
        if len(calls) > 1 and not self.parallel:
            return Fault("tool_choice", "tool_calls", f"{len(calls)} calls where one is allowed")
        if not calls and self.choice == "required" and not message.get("refusal"):
            return _ended(finish, "tool_calls") or Fault("tool_choice", "tool_calls", "no tool is called; one must be")
        return None

    def _content(self, message: Message, finish: str | None) -> Fault | None:
        content = message.get("content")
        if self.content is None:
            return None
        if (message.get("refusal") or message.get("tool_calls")) and not (content and content.strip()):
            return None
        return _ended(finish, "content") or self.content.fault(content or "", "content")


def _written(calls: Any, names: list[str]) -> Any:
    """Calls whose arguments are JSON values, as some servers send them, with the text of each instead."""
    if not isinstance(calls, list):
        return calls
    written = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
            names.append("arguments_as_text")
            text = json.dumps(function["arguments"], ensure_ascii=False)
            call = {**call, "function": {**function, "arguments": text}}
        written.append(call)
    return written


def _ended(finish: str | None, where: str) -> Fault | None:
    if finish not in CUT:
        return None
    return Fault("cut", where, f"the answer ended by '{finish}' before it was whole")


def _call_shape(call: Any, where: str, seen: set[tuple[str, Any]]) -> Fault | None:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or call.get("type", "function") != "function":
        return Fault("malformed", where, "it is no call of a function")
    if not isinstance(function.get("name"), str) or not function["name"]:
        return Fault("malformed", where, "the call has no name")
    if not isinstance(function.get("arguments"), str):
        return Fault("malformed", where, "the arguments are not a text")
    for key in ("id", "index"):
        if call.get(key) is not None:
            mark = (key, str(call[key]))
            if mark in seen:
                return Fault("malformed", where, f"the same {key} twice")
            seen.add(mark)
    return None


FREE = Demands()
