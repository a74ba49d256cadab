"""What a chat request asks of its answer, judged before anybody works on it.

Equal demands share one contract: it is found by the digest of ``response_format``, ``tools``, ``tool_choice`` and
``parallel_tool_calls``, so a demand that was met before costs some microseconds. What was refused is remembered too.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson

from quantgate.errors import SchemaRefused
from quantgate.guard import Contract
from quantgate.guard.contract import FREE, Demands
from quantgate.guard.limits import DEFAULT, Limits
from quantgate.guard.schemas import Schema

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
OBJECT = {"type": "object"}
FORMAT = "response_format"
Refusal = tuple[str, str]  # sentence, param


class Admission:
    """The contracts of one gateway: the newest, as many as ``limits`` lets it remember. Threads may share it."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[Demands | Refusal, int]] = OrderedDict()  # with the bytes of the demand
        self._bytes = 0

    def admit(self, body: Mapping[str, Any]) -> Contract:
        """Raises SchemaRefused with the key at fault."""
        shape, tools = body.get(FORMAT), body.get("tools")
        choice, parallel = body.get("tool_choice"), body.get("parallel_tool_calls")
        for param in ("functions", "function_call"):
            if body.get(param) is not None:
                raise SchemaRefused(f"'{param}' is not taken any more; use 'tools' and 'tool_choice'", param=param)
        if shape is None and tools is None and choice is None:
            return FREE
        demand = _written(shape, tools, choice, parallel)
        key = hashlib.blake2b(demand, digest_size=20).digest()
        found = self._find(key)
        if found is None:
            found = self._judged(shape, tools, choice, parallel)
            self._keep(key, found, len(demand))
        if isinstance(found, tuple):
            raise SchemaRefused(found[0], param=found[1])
        return found

    def _find(self, key: bytes) -> Demands | Refusal | None:
        with self._lock:
            known = self._known.get(key)
            if known is None:
                return None
            self._known.move_to_end(key)
            return known[0]

    def _keep(self, key: bytes, found: Demands | Refusal, size: int) -> None:
        with self._lock:
            if key in self._known:
                return
            self._known[key] = found, size
            self._bytes += size
            while len(self._known) > self._limits.remembered or self._bytes > self._limits.remembered_bytes:
                self._bytes -= self._known.popitem(last=False)[1][1]

    def _judged(self, shape: Any, tools: Any, choice: Any, parallel: Any) -> Demands | Refusal:
        deadline_s = time.monotonic() + self._limits.compile_s
        try:
            if not isinstance(parallel, bool | None):
                raise SchemaRefused("'parallel_tool_calls' is true or false", param="parallel_tool_calls")
            content = _content(shape, self._limits, deadline_s)
            offered = _tools(tools, self._limits, deadline_s)
            often, allowed = _choice(choice, frozenset(offered))
            return Demands(content, offered, often, allowed, parallel is not False)
        except SchemaRefused as refused:
            return str(refused), refused.param


_ADMISSIONS: dict[Limits, Admission] = {DEFAULT: Admission()}


def admit(body: Mapping[str, Any], limits: Limits = DEFAULT) -> Contract:
    """The contract of a chat body. Raises SchemaRefused.

    >>> admit({"messages": []}).structured
    False
    >>> admit({"response_format": {"type": "xml"}})
    Traceback (most recent call last):
    quantgate.errors.SchemaRefused: unknown type 'xml'; expected text, json_object or json_schema
    """
    if limits not in _ADMISSIONS:
        _ADMISSIONS[limits] = Admission(limits)
    return _ADMISSIONS[limits].admit(body)


def _written(*demands: Any) -> bytes:
    try:
        return orjson.dumps(demands)
    except (TypeError, ValueError) as unfit:
        raise SchemaRefused(f"the demand is not JSON, or nested too deeply: {unfit}", param=FORMAT) from None


def _content(shape: Any, limits: Limits, deadline_s: float) -> Schema | None:
    if shape is None:
        return None
    if not isinstance(shape, dict):
        raise SchemaRefused(f"'{FORMAT}' is not an object", param=FORMAT)
    kind = shape.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Schema(OBJECT, FORMAT, limits, deadline_s)
    if kind != "json_schema":
        expected = "expected text, json_object or json_schema"
        raise SchemaRefused(f"unknown type {str(kind)[:40]!r}; {expected}", param=f"{FORMAT}.type")
    param = f"{FORMAT}.json_schema"
    named = shape.get("json_schema")
    if not isinstance(named, dict):
        raise SchemaRefused("'json_schema' is missing or not an object", param=param)
    _name(named.get("name"), f"{param}.name")
    _strict(named, param)
    if named.get("schema") is None:
        raise SchemaRefused("the schema is missing", param=f"{param}.schema")
    return Schema(named["schema"], f"{param}.schema", limits, deadline_s)


def _name(name: Any, param: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        shown = f"{name[:64]!r} is no name" if isinstance(name, str) else "the name is missing or not a text"
        raise SchemaRefused(f"{shown}; expected 1 to 64 of a-z, A-Z, 0-9, _ and -", param=param)
    return name


def _strict(holder: dict[str, Any], param: str) -> None:
    if not isinstance(holder.get("strict"), bool | None):
        raise SchemaRefused("'strict' is true or false", param=f"{param}.strict")


def _tools(tools: Any, limits: Limits, deadline_s: float) -> dict[str, Schema]:
    if tools is None:
        return {}
    if not isinstance(tools, list) or not tools:
        raise SchemaRefused("'tools' is not a list, or is empty; leave it out where there are none", param="tools")
    if len(tools) > limits.tools:
        raise SchemaRefused(f"{len(tools)} tools; at most {limits.tools} are taken", param="tools")
    offered: dict[str, Schema] = {}
    for place, tool in enumerate(tools):
        param = f"tools[{place}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise SchemaRefused("expected {'type': 'function', 'function': {...}}", param=f"{param}.type")
        function = tool["function"]
        name = _name(function.get("name"), f"{param}.function.name")
        if name in offered:
            raise SchemaRefused(f"two tools are named '{name}'", param=f"{param}.function.name")
        _strict(function, f"{param}.function")
        offered[name] = _parameters(function, f"{param}.function.parameters", limits, deadline_s)
    return offered


def _parameters(function: dict[str, Any], param: str, limits: Limits, deadline_s: float) -> Schema:
    """Arguments are an object, whatever the parameters say besides."""
    parameters = function.get("parameters")
    if parameters is None or parameters is True:
        parameters = OBJECT
    if not isinstance(parameters, dict):
        raise SchemaRefused("the parameters are not a schema", param=param)
    if parameters.get("type", "object") != "object":
        raise SchemaRefused("the parameters are not of type 'object'", param=param)
    if "type" not in parameters and "$ref" not in parameters:
        parameters = {**parameters, "type": "object"}
    return Schema(parameters, param, limits, deadline_s)


def _choice(choice: Any, offered: frozenset[str]) -> tuple[str, frozenset[str] | None]:
    """How often tools are called, and which."""
    param = "tool_choice"
    if choice is None:
        return "auto", None
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            expected = "expected none, auto, required or {'type': 'function', ...}"
            raise SchemaRefused(f"unknown choice {choice[:40]!r}; {expected}", param=param)
        if choice == "required" and not offered:
            raise SchemaRefused("a tool must be called, but none is offered", param=param)
        return choice, None
    if not isinstance(choice, dict):
        raise SchemaRefused("it is neither a text nor an object", param=param)
    if choice.get("type") == "allowed_tools":
        chosen = choice.get("allowed_tools")
        if not isinstance(chosen, dict) or chosen.get("mode") not in ("auto", "required"):
            expected = "expected {'mode': 'auto' or 'required', 'tools': [...]}"
            raise SchemaRefused(expected, param=f"{param}.allowed_tools")
        listed = chosen.get("tools")
        if not isinstance(listed, list) or not listed:
            raise SchemaRefused("expected a list of tools", param=f"{param}.allowed_tools.tools")
        return chosen["mode"], frozenset(_known(one, offered, param) for one in listed)
    return "required", frozenset([_known(choice, offered, param)])


def _known(choice: Any, offered: frozenset[str], param: str) -> str:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(choice, dict) or choice.get("type") != "function" or not isinstance(name, str):
        raise SchemaRefused("expected {'type': 'function', 'function': {'name': ...}}", param=param)
    if name not in offered:
        raise SchemaRefused(f"no tool {name[:64]!r} is offered", param=param)
    return name
