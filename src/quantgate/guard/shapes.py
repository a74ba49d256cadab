"""A schema as what one place of a JSON text may hold: a few shapes, one of which the value must have.

A ``Shape`` is a conjunction of schema objects (``plain.py``) that hold at one place: what ``allOf`` and ``$ref`` bring
together. ``anyOf``, ``oneOf`` and ``if`` make several shapes. Every step only ever leaves demands out, never adds one:
what cannot be told before a value ends (``not``, ``contains``, ``uniqueItems``, ``unevaluatedProperties`` ...) is left
to the whole check, so a shape that dies proves that no continuation could keep the schema. Places are looked at when a
text first comes to them, so a schema that contains itself costs no more than another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from quantgate.guard.plain import EVERY, OBJECT, TEXT, Plain

STEPS = 4_000  # schema objects looked at for one place; the same beyond
DEEP = 80  # references and branches within each other, at one place; the same beyond
REMEMBERED = 2_000  # shapes of one schema: which there are can depend on the keys of answers
MOST = 64  # shapes of one place; beyond, a demand is left to the whole check


class Shape:
    """What one value may be: all of some schema objects at once."""

    __slots__ = ("_below", "_rest", "_schemas", "closed", "longest", "max_items", "max_length", "max_properties",
                 "min_items", "min_properties", "named", "numbers", "open", "parts", "required", "texts", "types",
                 "words")  # fmt: skip

    def __init__(self, parts: tuple[Plain, ...], schemas: Shapes) -> None:
        self.parts, self._schemas = parts, schemas
        self.types, self.words = EVERY, None
        for part in parts:
            self.types &= part.types
            if part.words is not None:
                self.words = part.words if self.words is None else self.words & part.words
        if self.words is not None and not self.words:
            self.types &= ~TEXT
        self.longest = max((len(word) for word in self.words or ()), default=0)
        self.required = frozenset(key for part in parts for key in part.required)
        self.max_items = _least(part.max_items for part in parts)
        self.max_length = _least(part.max_length for part in parts)
        self.max_properties = _least(part.max_properties for part in parts)
        self.min_items = max((part.min_items for part in parts), default=0)
        self.min_properties = max((part.min_properties for part in parts), default=0)
        self.texts = [part.texts for part in parts if part.texts is not None]
        self.numbers = [part.numbers for part in parts if part.numbers is not None]
        self.named = frozenset(key for part in parts for key in part.named)
        closing = [frozenset(part.named) for part in parts if part.closed]
        self.closed = frozenset.intersection(*closing) if closing else None  # the only keys, where they are counted
        self.open = not any(part.patterns for part in parts)  # every key without a name is alike
        self._below: dict[str | int, tuple[Shape, ...]] = {}
        self._rest: tuple[Shape, ...] | None = None
        if self.closed is not None and self.required - self.closed:
            self.types &= ~OBJECT

    def key(self, key: str) -> tuple[Shape, ...]:
        """The shapes of the value of ``key``; none where there may be no such key."""
        if key in self.named:
            found = self._below.get(key)
            if found is None:
                found = self._below[key] = self._expand(below for part in self.parts for below in part.below(key))
            return found
        if not self.open:  # the key is the answer's own: nothing is remembered about it
            return self._expand(below for part in self.parts for below in part.below(key))
        if self._rest is None:
            self._rest = self._expand(part.rest for part in self.parts)
        return self._rest

    def item(self, place: int) -> tuple[Shape, ...]:
        """The shapes of the item at ``place``, from 0; none where the array must end before."""
        if self.max_items is not None and place >= self.max_items:
            return ()
        place = min(place, max((len(part.first) for part in self.parts), default=0))  # those behind are alike
        found = self._below.get(place)
        if found is None:
            found = self._below[place] = self._expand(part.item(place) for part in self.parts)
        return found

    def _expand(self, schemas: Iterable[Any]) -> tuple[Shape, ...]:
        return self._schemas.of(schemas)


def _least(numbers: Iterable[float | None]) -> float | None:
    return min((number for number in numbers if number is not None), default=None)


Ways = list[frozenset[int]]  # each a set of schema objects, by id


class Shapes:
    """All shapes of one schema document, made when they are asked for."""

    def __init__(self, root: Any, draft: type[jsonschema_rs.Validator]) -> None:
        self._root, self._draft = root, draft
        self._fourth = draft is jsonschema_rs.Draft4Validator  # knows no const
        self._early = draft is not jsonschema_rs.Draft202012Validator
        self._bare_refs = draft in (
            jsonschema_rs.Draft4Validator,
            jsonschema_rs.Draft6Validator,
            jsonschema_rs.Draft7Validator,
        )  # what stands beside a $ref counts for nothing there
        self._plains: dict[int, Plain] = {}
        self._shapes: dict[frozenset[int], Shape] = {}
        self._found: dict[tuple[int, ...], tuple[Shape, ...]] = {}
        self._steps = 0
        self.start = self.of([root])

    def of(self, schemas: Iterable[Any]) -> tuple[Shape, ...]:
        """What a value may be that all of ``schemas`` hold for."""
        asked = tuple(schemas)
        key = tuple(map(id, asked))  # they are parts of the root, which lives as long
        found = self._found.get(key)
        if found is None:
            found = self._made(asked)
            if len(self._found) < REMEMBERED:
                self._found[key] = found
        return found

    def _made(self, schemas: tuple[Any, ...]) -> tuple[Shape, ...]:
        ways: Ways = [frozenset()]
        self._steps = STEPS
        for schema in schemas:
            ways = self._both(ways, self._ways(schema, ()))
        shapes = [self._shape(way) for way in dict.fromkeys(ways)]
        return tuple(shape for shape in shapes if shape.types)

    def _shape(self, way: frozenset[int]) -> Shape:
        shape = self._shapes.get(way)
        if shape is None:
            shape = Shape(tuple(self._plains[one] for one in sorted(way)), self)
            if len(self._shapes) < REMEMBERED:
                self._shapes[way] = shape
        return shape

    def _both(self, ways: Ways, others: Ways) -> Ways:
        """Both demands at once; the second is left out where that would be too many shapes."""
        if len(ways) * len(others) > MOST:
            return ways
        return list(dict.fromkeys(one | other for one in ways for other in others))

    def _either(self, schemas: list[Any], trail: tuple[str, ...]) -> Ways:
        ways: Ways = []
        for schema in schemas:
            ways += self._ways(schema, (*trail, ""))
        return [frozenset()] if frozenset() in ways else ways

    def _ways(self, schema: Any, trail: tuple[str, ...]) -> Ways:
        if schema is False or (isinstance(schema, dict) and _nothing(schema.get("not"))):
            return []
        self._steps -= 1
        if not isinstance(schema, dict) or not schema or self._steps < 0 or len(trail) > DEEP:
            return [frozenset()]
        if schema is not self._root and based(schema):
            return [frozenset()]  # left to the whole check
        ways: Ways = [frozenset()]
        reference = schema.get("$ref")
        if not (self._bare_refs and reference is not None):
            ways = self._own(schema, trail)
        if isinstance(reference, str) and reference not in trail:
            found, target = resolve(self._root, reference)
            if found:
                ways = self._both(ways, self._ways(target, (*trail, reference)))
        return ways

    def _own(self, schema: dict[str, Any], trail: tuple[str, ...]) -> Ways:
        mark = id(schema)
        if mark not in self._plains:
            known = {key: value for key, value in schema.items() if key != "const"} if self._fourth else schema
            self._plains[mark] = Plain(known, self._draft, self._early)
        ways: Ways = [frozenset([mark])]
        for one in schema.get("allOf", ()):
            ways = self._both(ways, self._ways(one, (*trail, "")))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                ways = self._both(ways, self._either(schema[key], trail))
        if "if" in schema and "then" in schema and "else" in schema and not self._bare_refs:
            ways = self._both(ways, self._either([schema["then"], schema["else"]], trail))
        return ways


def _nothing(negated: Any) -> bool:
    return negated is True or negated == {}


def resolve(root: Any, reference: str) -> tuple[bool, Any]:
    """Whether a local pointer leads somewhere, and where.

    >>> resolve({"$defs": {"a/b": 1}}, "#/$defs/a~1b")
    (True, 1)
    """
    if reference != "#" and not reference.startswith("#/"):
        return False, None
    here = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and name in here:
            here = here[name]
        elif isinstance(here, list) and name.isdecimal() and int(name) < len(here):
            here = here[int(name)]
        else:
            return False, None
        if isinstance(here, dict) and based(here):
            return False, None  # another base of addresses begins there
    return True, here


def based(schema: dict[str, Any]) -> bool:
    """Whether a schema object is a document of its own."""
    return isinstance(schema.get("$id"), str) or isinstance(schema.get("id"), str)


ANYTHING = Shapes(True, jsonschema_rs.Draft202012Validator).start[0]
