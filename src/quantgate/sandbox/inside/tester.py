"""The process that holds the tests and the nonce: it runs the tests here, and has the solver make the calls in them.

What a test compares was rebuilt here from plain data, by this process's own ``==``. An object of the code's own class
is a ``Remote``: it gives attributes, items and calls, and never decides a comparison with data. The names that tests
find are theirs, then those of the setup, built-ins and standard modules, and only then the code's.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from . import wire

NAME = "<tests>"
LONG = 160  # characters of a value or a line that a person is shown


def test(channel: wire.Channel, job: dict[str, Any]) -> dict[str, Any]:
    """The verdict on the solver at the other end of ``channel``.

    ``job``: tests, setup, entry (or None) and nonce. Gives {"passed": nonce}, {"failed": why} with {"gone": True} where
    the solver did not live to the end, or {"broken": why} where the tests are at fault.
    """
    link = Link(channel)
    space: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    try:
        exec(compile(job["setup"], "<setup>", "exec"), space)
        code = compile(job["tests"], NAME, "exec")
    except (Exception, SystemExit) as problem:
        return {"broken": f"the setup or the tests cannot be run: {_sentence(problem)}"}
    try:
        offered = _offered(link, job)
    except (Exception, wire.Broken) as problem:
        why = str(problem) if isinstance(problem, Failed) else f"the code ended before it could be tested ({problem})"
        return {"failed": why, "gone": isinstance(problem, wire.Broken)}
    space |= {name: one for name, one in offered.items() if name not in space or name == job["entry"]}
    try:
        exec(code, space)
    except Unpassable as problem:
        return {"broken": str(problem)}
    except wire.Broken as gone:
        link.gone = str(gone)
    except BaseException as problem:
        return {"failed": f"{_sentence(problem)}{_where(problem, job['tests'])}{link.last()}"}
    if link.gone:
        why = f"the code ended the process, or its reply cannot be read: {link.gone}{link.last()}"
        return {"failed": why, "gone": True}
    if not link.calls and all(isinstance(one, Remote) for one in offered.values()):
        return {"broken": "the tests passed without using the code; they must call it, and raise where it is wrong"}
    if not link.calls:
        return {"failed": "the tests passed without calling anything that the code defines"}
    return {"passed": job["nonce"]}


class Failed(Exception):
    """The code cannot pass, for a reason found before its tests."""


class Unpassable(BaseException):
    """A value of the tests that cannot cross to the code."""


def _offered(link: Link, job: dict[str, Any]) -> dict[str, Any]:
    """What the tests take from the code, by name: the entry, and names that they use and no built-in has."""
    told = link.channel.get()
    if "raised" in told:
        raised = told["raised"]
        line = f", line {raised['line']}" if raised["line"] else ""
        what = _cut(f"{raised['kinds'][0]}: {raised['message']}")
        raise Failed(f"the code stopped with {what}{line}")
    names, entry = told["names"], job["entry"]
    if entry is not None and entry not in names:
        raise Failed(f"the code defines no '{entry}'")
    loaded = {node.id for node in ast.walk(ast.parse(job["tests"])) if isinstance(node, ast.Name)}
    wanted = {name for name in loaded & set(names) if not hasattr(builtins, name)} | ({entry} if entry else set())
    return {name: link.named(name, names[name]) for name in sorted(wanted)}


class Link:
    """The tester's end: requests to the solver, the objects that it keeps, and the functions that it was given."""

    def __init__(self, channel: wire.Channel) -> None:
        self.channel = channel
        self.remotes: dict[int, Remote] = {}
        self.functions: list[Any] = []
        self.errors: dict[str, type[BaseException]] = {}
        self.calls, self.gone, self.latest = 0, "", ""

    def named(self, name: str, told: dict[str, Any]) -> Any:
        """What a name of the code is here. Modules of the standard library are this process's own."""
        if "module" in told or name in sys.stdlib_module_names:
            module = told.get("module", name)
            if module.partition(".")[0] not in sys.stdlib_module_names:
                raise Failed(
                    f"the tests use '{name}', which the code takes from '{module}', outside the standard library"
                )
            return importlib.import_module(module)
        if "error" in told:
            return self.error(told["error"])
        value = wire.Reader(self.find).read(told["value"])
        if isinstance(value, Remote):
            object.__setattr__(value, "_called", name)
        elif callable(value):
            raise wire.Broken("a function that is none of its own")
        return value

    def handle(self, value: Any) -> list[Any]:
        if isinstance(value, Remote):
            return ["o", value._number]
        if (isinstance(value, type) and issubclass(value, BaseException)) or not callable(value):
            kind = type(value).__name__
            raise Unpassable(f"the tests pass an object of type {kind} to the code; pass plain data or a function")
        self.functions.append(value)
        return ["f", len(self.functions) - 1]

    def find(self, parts: list[Any]) -> Any:
        if parts[0] == "f":
            return self.functions[parts[1]]
        _, number, kind, _ = parts
        if number not in self.remotes:
            self.remotes[number] = Remote(self, number, str(kind))
        return self.remotes[number]

    def error(self, kinds: list[str]) -> type[BaseException]:
        """A built-in exception, or a twin of the code's own, derived from the built-in one that it extends."""
        known = next(wire.ERRORS[kind] for kind in [*kinds, "Exception"] if kind in wire.ERRORS)
        if not kinds or kinds[0] in wire.ERRORS:
            return known
        if kinds[0] not in self.errors:
            parent = self.error(kinds[1:])
            self.errors[kinds[0]] = type(str(kinds[0]), (parent,), {})
        return self.errors[kinds[0]]

    def ask(self, do: str, *args: Any, **named: Any) -> Any:
        """Have the solver do one thing. Raises what it raised there, as this process's own exception."""
        if self.gone:
            raise wire.Broken(self.gone)
        writer = wire.Writer(self.handle)
        request = {
            "do": do,
            "args": [writer.write(one) for one in args],
            "named": {name: writer.write(one) for name, one in named.items()},
        }
        try:
            self.channel.put(request)
            while "call_back" in (reply := self._reply()):
                self._call_back(reply)
            if "raised" in reply:
                kinds = [str(one) for one in reply["raised"]["kinds"]]
                raise _made(self.error(kinds), str(reply["raised"]["message"]))
            reader = wire.Reader(self.find, writer.met)
            result = reader.read(reply["result"])
            reader.refresh(reply["states"])
        except wire.Broken as gone:
            self.gone = str(gone)
            raise
        except (LookupError, TypeError) as nonsense:
            if isinstance(nonsense, tuple(self.errors.values())) or "raised" in reply:
                raise
            self.gone = f"a reply that cannot be read ({type(nonsense).__name__})"
            raise wire.Broken(self.gone) from None
        return result

    def call(self, remote: Remote, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.calls += 1
        given = [*(_short(one) for one in args), *(f"{name}={_short(one)}" for name, one in named.items())]
        self.latest = f"{remote._called or 'it'}({', '.join(given)})"
        self.latest = self.latest if len(self.latest) <= LONG else self.latest[: LONG - 4] + " ..."
        shown = self.latest
        result = self.ask("call", remote, *args, **named)
        self.latest = f"{shown} gave {_short(result)}"
        return result

    def last(self) -> str:
        return f"; last call: {self.latest}" if self.latest else ""

    def _reply(self) -> dict[str, Any]:
        reply = self.channel.get()
        if not isinstance(reply, dict):
            raise wire.Broken("a reply that is no object")
        return reply

    def _call_back(self, asked: dict[str, Any]) -> None:
        function = self.functions[asked["call_back"]]
        reader = wire.Reader(self.find)
        args = [reader.read(one) for one in asked["args"]]
        named = {str(name): reader.read(one) for name, one in asked["named"].items()}
        try:
            self.channel.put({"result": wire.Writer(self.handle).write(function(*args, **named))})
        except Exception as problem:
            self.channel.put({"raised": type(problem).__name__, "message": str(problem)[:500]})


class Remote:
    """An object that stays with the solver."""

    def __init__(self, link: Link, number: int, kind: str) -> None:
        for name, value in (("_link", link), ("_number", number), ("_kind", kind), ("_called", "")):
            object.__setattr__(self, name, value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._link.call(self, args, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        found = self._link.ask("get", self, name)
        if isinstance(found, Remote):
            object.__setattr__(found, "_called", name)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._link.ask("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._link.ask("set_item", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._link.ask("delete_item", self, key)

    def __len__(self) -> int:
        return int(self._link.ask("len", self))

    def __bool__(self) -> bool:
        return self._link.ask("bool", self) is True

    def __str__(self) -> str:
        return str(self._link.ask("str", self))

    def __repr__(self) -> str:
        return f"<{self._kind} of the code>"

    def __iter__(self) -> Iterator[Any]:
        walk = self._link.ask("iter", self)
        while True:
            try:
                yield self._link.ask("next", walk)
            except StopIteration:
                return

    def __next__(self) -> Any:
        return self._link.ask("next", self)

    def __instancecheck__(self, one: Any) -> bool:
        return isinstance(one, Remote) and self._link.ask("is", one, self) is True

    def __hash__(self) -> int:
        return int(self._number)

    def __eq__(self, other: object) -> bool:
        """With another object of the code, as the code says; with data of the tests, never equal."""
        return self is other or (isinstance(other, Remote) and self._link.ask("eq", self, other) is True)

    def __lt__(self, other: object) -> Any:
        return self._both("lt", other)

    def __le__(self, other: object) -> Any:
        return self._both("le", other)

    def __add__(self, other: object) -> Any:
        return self._both("add", other)

    def __sub__(self, other: object) -> Any:
        return self._both("sub", other)

    def __mul__(self, other: object) -> Any:
        return self._both("mul", other)

    def _both(self, do: str, other: object) -> Any:
        return self._link.ask(do, self, other) if isinstance(other, Remote) else NotImplemented


def _made(kind: type[BaseException], message: str) -> BaseException:
    try:
        return kind(message)
    except TypeError:  # UnicodeDecodeError and the like want more than a message
        return RuntimeError(f"{kind.__name__}: {message}")


def _short(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception as problem:
        shown = f"<{type(problem).__name__} when shown>"
    return shown if len(shown) <= LONG else shown[: LONG - 4] + " ..."


def _sentence(problem: BaseException) -> str:
    message = _cut(str(problem))
    return f"{type(problem).__name__}: {message}" if message else type(problem).__name__


def _cut(text: str) -> str:
    line = " ".join(text[:4096].split())
    return line if len(line) <= 2 * LONG else line[: 2 * LONG - 4] + " ..."


def _where(problem: BaseException, tests: str) -> str:
    """The line of the tests that stopped."""
    at, frame = None, problem.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == NAME:
            at = frame.tb_lineno
        frame = frame.tb_next
    lines = tests.splitlines()
    if at is None or at > len(lines):
        return ""
    line = lines[at - 1].strip()
    return f" at '{line if len(line) <= LONG else line[: LONG - 4] + ' ...'}'"
