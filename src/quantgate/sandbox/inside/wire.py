"""Values between the solver and the tester: JSON after a length; plain data are rebuilt, all else crosses as a handle.

The tester reads what untrusted code wrote, so nothing here runs on reading: exact built-in types and a few of the
standard library are made anew from numbers and texts. A subclass of one arrives as its base (an ``int`` that claims to
equal everything arrives as the number it holds). Anything else stays where it is and crosses as a numbered handle.

Mutable containers of a message are numbered in the order in which they are met, on both sides alike: shared and cyclic
structure survives, and a reply can say what became of the containers that a call was given.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import json
import keyword
import os
import struct
from collections.abc import Callable
from typing import Any

LONGEST = 32 << 20  # bytes of a message
SAFE = 1 << 53
TYPES: dict[str, Any] = {
    one.__name__: one
    for one in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object, type)
} | {"NoneType": type(None), "range": range}
ERRORS = {name: one for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, BaseException)}


class Broken(BaseException):
    """The other side is gone, or speaks nonsense. No ``except Exception`` of a test catches it."""


class Channel:
    """Messages over two file descriptors."""

    def __init__(self, receive: int, send: int) -> None:
        self.receive, self.send = receive, send

    def put(self, message: Any) -> None:
        data = json.dumps(message, separators=(",", ":")).encode("ascii")
        left = memoryview(struct.pack("!Q", len(data)) + data)
        while left:
            try:
                left = left[os.write(self.send, left) :]
            except OSError:
                raise Broken("the process has ended") from None

    def get(self) -> Any:
        (length,) = struct.unpack("!Q", self._exactly(8))
        if length > LONGEST:
            raise Broken(f"a value of more than {LONGEST >> 20} MiB")
        try:
            return json.loads(self._exactly(length))
        except (ValueError, RecursionError, MemoryError) as problem:
            raise Broken(f"no message: {type(problem).__name__}") from None

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = os.read(self.receive, min(count - len(parts), 1 << 20))
            if not part:
                raise Broken("the process has ended")
            parts += part
        return bytes(parts)


class Writer:
    """Values of one message on their way out. ``handle(value)`` makes what crosses in place of what is not plain."""

    def __init__(self, handle: Callable[[Any], list[Any]], known: list[Any] | None = None) -> None:
        self.handle = handle
        self.met: list[Any] = list(known or [])  # the numbered containers; kept alive, so that an id stays one object's
        self.numbers = {id(one): at for at, one in enumerate(self.met)}

    def write(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int:
            return value if -SAFE < value < SAFE else ["i", hex(value)]
        if id(value) in self.numbers:
            return ["r", self.numbers[id(value)]]
        return self._other(value, kind)

    def _other(self, value: Any, kind: type) -> Any:
        for base, zero in NUMBERS_AND_TEXTS:
            if issubclass(kind, base):
                return self.write(base.__add__(value, zero))
        if issubclass(kind, tuple):
            fields = getattr(kind, "_fields", None)
            items = [self.write(one) for one in tuple.__iter__(value)]
            if isinstance(fields, tuple) and len(fields) == len(items) and all(type(one) is str for one in fields):
                return ["n", kind.__name__, list(fields), items]
            return ["t", items]
        if issubclass(kind, frozenset):
            return ["z", [self.write(one) for one in frozenset.__iter__(value)]]
        if issubclass(kind, MUTABLE):
            self.numbers[id(value)] = len(self.met)
            self.met.append(value)
            return self.state(value)
        for tag, (base, parts, _) in PLAIN.items():
            if kind is base:
                return [tag, *parts(value)]
        if kind is type and TYPES.get(name := str(value.__name__)) is value:
            return ["T", name]
        return self.handle(value)

    def state(self, value: Any) -> list[Any]:
        """What a mutable container holds now."""
        kind = type(value)
        if issubclass(kind, bytearray):
            return ["a", bytearray.decode(value, "latin-1")]
        if issubclass(kind, dict):
            tag = (
                "C"
                if issubclass(kind, collections.Counter)
                else "O"
                if issubclass(kind, collections.OrderedDict)
                else "d"
            )
            return [tag, [[self.write(key), self.write(one)] for key, one in dict.items(value)]]
        if issubclass(kind, collections.deque):
            return ["q", value.maxlen, [self.write(one) for one in collections.deque.__iter__(value)]]
        base = list if issubclass(kind, list) else set
        return ["l" if base is list else "s", [self.write(one) for one in base.__iter__(value)]]


NUMBERS_AND_TEXTS: tuple[tuple[Any, Any], ...] = ((int, 0), (float, 0.0), (str, ""))  # a subclass plus it: the base
MUTABLE = (list, dict, set, bytearray, collections.deque)
PLAIN: dict[str, tuple[type, Callable[[Any], list[Any]], Callable[..., Any]]] = {
    "b": (bytes, lambda one: [one.decode("latin-1")], lambda text: text.encode("latin-1")),
    "c": (complex, lambda one: [one.real, one.imag], complex),
    "R": (range, lambda one: [hex(one.start), hex(one.stop), hex(one.step)],
          lambda *ends: range(*(int(end, 16) for end in ends))),
    "D": (decimal.Decimal, lambda one: [str(one)], decimal.Decimal),
    "F": (fractions.Fraction, lambda one: [hex(one.numerator), hex(one.denominator)],
          lambda top, below: fractions.Fraction(int(top, 16), int(below, 16))),
    "dd": (datetime.date, lambda one: [one.isoformat()], datetime.date.fromisoformat),
    "dt": (datetime.datetime, lambda one: [one.isoformat()], datetime.datetime.fromisoformat),
    "dh": (datetime.time, lambda one: [one.isoformat()], datetime.time.fromisoformat),
    "dl": (datetime.timedelta, lambda one: [one.days, one.seconds, one.microseconds], datetime.timedelta),
}  # fmt: skip


class Reader:
    """Values of one message on their way in. ``handle(parts)`` finds or makes what a handle stands for."""

    def __init__(self, handle: Callable[[list[Any]], Any], known: list[Any] | None = None) -> None:
        self.handle = handle
        self.met: list[Any] = list(known or [])

    def read(self, given: Any) -> Any:
        """Raises Broken for what no writer writes."""
        try:
            return self._read(given)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as problem:
            raise Broken(f"a value that cannot be read ({type(problem).__name__})") from None

    def _read(self, given: Any) -> Any:
        if not isinstance(given, list):
            if isinstance(given, dict):
                raise TypeError("a bare object")
            return given
        tag, *parts = given
        match tag:
            case "i":
                return int(parts[0], 16)
            case "r":
                return self.met[parts[0]]
            case "t":
                return tuple(self._read(one) for one in parts[0])
            case "z":
                return frozenset(self._read(one) for one in parts[0])
            case "n":
                return _named(parts[0], parts[1], [self._read(one) for one in parts[2]])
            case "T":
                return TYPES[parts[0]]
        if tag in PLAIN:
            return PLAIN[tag][2](*parts)
        if tag in EMPTY:
            made = collections.deque(maxlen=parts[0]) if tag == "q" else EMPTY[tag]()
            self.met.append(made)
            return self._fill(made, given)
        return self.handle(given)

    def _fill(self, made: Any, given: list[Any]) -> Any:
        if given[0] == "a":
            made += given[1].encode("latin-1")
        elif given[0] in "dCO":
            for key, one in given[1]:
                made[self._read(key)] = self._read(one)
        else:
            add = made.add if given[0] == "s" else made.append
            for one in given[-1]:
                add(self._read(one))
        return made

    def refresh(self, states: list[list[Any]]) -> None:
        """Make the first containers hold what ``states`` say, leaving alone those that do already."""
        try:
            fresh = [self._fill(EMPTY[one[0]](), one) for one in states]
            for made, new in zip(self.met, fresh, strict=False):
                if not isinstance(made, type(new)):
                    raise TypeError("another kind of container")
                if not _same(made, new):
                    made.clear()
                    (made.update if isinstance(made, dict | set) else made.extend)(new)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as problem:
            raise Broken(f"a value that cannot be read ({type(problem).__name__})") from None


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:
        return False


EMPTY: dict[str, Callable[[], Any]] = {
    "l": list, "s": set, "d": dict, "a": bytearray, "C": collections.Counter, "O": collections.OrderedDict,
    "q": collections.deque,
}  # fmt: skip


def _named(name: str, fields: list[str], items: list[Any]) -> Any:
    if not all(type(one) is str and one.isidentifier() and not keyword.iskeyword(one) for one in (name, *fields)):
        raise ValueError("no field names")
    made: Any = collections.namedtuple(name, fields)  # type: ignore[misc]  # its names come with the value
    return made(*items)
