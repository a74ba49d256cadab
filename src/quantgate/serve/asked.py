"""Whether a chat body is one: the types and ranges of OpenAI's own parameters, by a table.

What an upstream knows beside them (``top_k``, ``min_p``, ``chat_template_kwargs`` ...) passes unread. What a
*structured* answer is asked for is guard.admission's to judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from quantgate.serve.refusals import bad

Check = Callable[[Any], bool]
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def number(low: float, high: float) -> tuple[str, Check]:
    def check(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return f"a number from {low:g} to {high:g}", check


def whole(low: int, high: float = math.inf) -> tuple[str, Check]:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return f"a whole number from {low}" + (f" to {high:g}" if high < math.inf else " on"), check


def kind(told: str, *types: type) -> tuple[str, Check]:
    return told, lambda value: isinstance(value, types)


def _stop(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and len(value) <= 64 and all(isinstance(text, str) for text in value)
    )


def _logit_bias(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(bias, int | float) and -100 <= bias <= 100 for bias in value.values()
    )


TABLE: Mapping[str, tuple[str, Check]] = {
    "model": kind("a model's name", str),
    "messages": ("at least one message", lambda value: isinstance(value, list) and bool(value)),
    "stream": kind("true or false", bool),
    "stream_options": kind("an object", dict),
    "n": whole(1, 128),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "max_tokens": whole(1),
    "max_completion_tokens": whole(1),
    "top_logprobs": whole(0, 20),
    "logprobs": kind("true or false", bool),
    "seed": whole(-(2**63), 2**64),
    "stop": ("a text or a list of texts", _stop),
    "logit_bias": ("an object of numbers from -100 to 100", _logit_bias),
    "user": kind("a text", str),
    "metadata": kind("an object", dict),
    "parallel_tool_calls": kind("true or false", bool),
}
UNBOUND = ("best_of", "n_predict", "num_predict", "max_new_tokens", "use_beam_search", "min_tokens", "ignore_eos")
"""Of servers behind the gateway: how much they write, beside what OpenAI's own parameters say."""
REQUIRED = ("model", "messages")


def check_chat(body: Mapping[str, Any]) -> None:
    """Raises Refused, 400, that names the parameter."""
    for name in REQUIRED:
        if name not in body:
            raise bad(name, f"{name}: missing; expected {TABLE[name][0]}", "missing_required_parameter")
    for name, value in body.items():
        rule = TABLE.get(name)
        if rule is not None and not rule[1](value) and (value is not None or name in REQUIRED):
            raise bad(name, f"{name}: expected {rule[0]}, found {_shown(value)}")
    if body.get("stream_options") is not None and not body.get("stream"):
        raise bad("stream_options", "stream_options: only a request with stream: true may have them")
    _check_messages(body["messages"])


def check_bounded(body: Mapping[str, Any]) -> None:
    """Of a caller with a budget: that nothing asks for more than what is reserved. Raises Refused, 400."""
    for name in UNBOUND:
        if body.get(name) and not (name == "best_of" and body[name] == 1):
            said = "this key has a budget, and what this asks for cannot be reserved; use max_completion_tokens"
            raise bad(name, f"{name}: {said}", "unsupported_parameter")


def _check_messages(messages: list[Any]) -> None:
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            where = f"messages[{index}].role"
            raise bad(where, f"{where}: expected one of {', '.join(ROLES)}, found {_shown(role)}")
        content = message.get("content")
        if type(content) is not str:
            _check_content(f"messages[{index}].content", content, role, message)


def _check_content(where: str, content: Any, role: str, message: Mapping[str, Any]) -> None:
    if content is None:
        if role == "assistant" and any(message.get(key) for key in ("tool_calls", "function_call", "refusal", "audio")):
            return
        raise bad(where, f"{where}: missing; expected a text or a list of parts")
    if not isinstance(content, list) or not content:
        raise bad(where, f"{where}: expected a text or a list of parts, found {_shown(content)}")
    for index, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise bad(f"{where}[{index}]", f"{where}[{index}]: expected an object with a type, found {_shown(part)}")


def _shown(value: Any) -> str:
    """What was found, short: the kind of a value and never a long quotation.

    >>> _shown("x"), _shown(None), _shown([1])
    ("'x'", 'null', 'a list')
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)[:24]
        case str():
            return f"'{value[:24]}'"
        case list():
            return "a list"
        case _:
            return "an object"
