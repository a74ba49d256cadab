"""The process that holds the code under test: it runs the code, then serves calls to what the code defined.

It knows neither the tests nor the nonce, and was forked before anybody had read them. Whatever the code does to this
process (its frames, its built-ins, these very functions), all it can reach is two pipes, on which it can say what a
call returned: nothing else.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from . import wire

NAME = "<answer>"


def solve(channel: wire.Channel, source: str) -> None:
    """Run ``source`` as a module that is not the main one, tell what it defined, serve until the tester hangs up."""
    space: dict[str, Any] = {"__name__": "answer", "__builtins__": __builtins__}
    served = Served(channel)
    try:
        exec(compile(source, NAME, "exec"), space)
    except BaseException as problem:
        channel.put({"raised": told(problem)})
        return
    names = {name: served.describe(value) for name, value in space.items() if not name.startswith("__")}
    channel.put({"names": names})
    while True:
        served.answer(channel.get())


def told(problem: BaseException) -> dict[str, Any]:
    """An exception as data: the names of its classes, its message, and the line of the answer that raised it."""
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == NAME]
    line = problem.lineno if isinstance(problem, SyntaxError) else lines[-1] if lines else None
    try:
        message = str(problem)[:500]
    except Exception:
        message = ""
    return {"kinds": [kind.__name__ for kind in type(problem).__mro__], "message": message, "line": line}


class Callback:
    """A function of the tests that was passed to the code."""

    def __init__(self, served: Served, number: int) -> None:
        self._served, self._number = served, number

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._served.call_back(self._number, args, named)


class Served:
    """The objects that stay here, by number, and the operations on them."""

    def __init__(self, channel: wire.Channel) -> None:
        self.channel = channel
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def handle(self, value: Any) -> list[Any]:
        if isinstance(value, Callback):
            return ["f", value._number]
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return ["o", self.numbers[id(value)], type(value).__name__, callable(value)]

    def find(self, parts: list[Any]) -> Any:
        return Callback(self, parts[1]) if parts[0] == "f" else self.objects[parts[1]]

    def describe(self, value: Any) -> dict[str, Any]:
        """What a name of the code stands for: a module, an exception class, or a value."""
        if isinstance(value, type(os)):
            return {"module": value.__name__}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"error": [kind.__name__ for kind in value.__mro__], "value": self.handle(value)}
        return {"value": self.handle(value) if callable(value) else wire.Writer(self.handle).write(value)}

    def answer(self, request: dict[str, Any]) -> None:
        """Do one thing; reply with its result and with what became of the containers that were given."""
        reader = wire.Reader(self.find)
        try:
            args = [reader.read(one) for one in request["args"]]
            named = {name: reader.read(one) for name, one in request.get("named", {}).items()}
            result = DOES[request["do"]](*args, **named)
            sys.stdout.flush()
            writer = wire.Writer(self.handle, reader.met)
            self.channel.put({"result": writer.write(result), "states": [writer.state(one) for one in reader.met]})
        except wire.Broken:
            raise
        except BaseException as problem:
            self.channel.put({"raised": told(problem)})

    def call_back(self, number: int, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Have the tester call one of its functions; it may call us meanwhile."""
        writer = wire.Writer(self.handle)
        self.channel.put(
            {
                "call_back": number,
                "args": [writer.write(one) for one in args],
                "named": {name: writer.write(one) for name, one in named.items()},
            }
        )
        while "do" in (message := self.channel.get()):
            self.answer(message)
        if "raised" in message:
            raise wire.ERRORS.get(message["raised"], RuntimeError)(message["message"])
        return wire.Reader(self.find).read(message["result"])


def _set_item(one: Any, key: Any, value: Any) -> None:
    one[key] = value


def _delete_item(one: Any, key: Any) -> None:
    del one[key]


DOES: dict[str, Callable[..., Any]] = {
    "call": lambda function, /, *args, **named: function(*args, **named),
    "get": getattr,
    "set": setattr,
    "item": lambda one, key: one[key],
    "set_item": _set_item,
    "delete_item": _delete_item,
    "len": len,
    "iter": iter,
    "next": next,
    "bool": bool,
    "str": str,
    "repr": repr,
    "is": isinstance,
    "eq": lambda one, other: one == other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "add": lambda one, other: one + other,
    "sub": lambda one, other: one - other,
    "mul": lambda one, other: one * other,
}
