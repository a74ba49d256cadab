"""One schema object's own demands, those that can be told while a text is written.

Texts and numbers are judged by the same validator as the whole answer, over the keywords that concern them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jsonschema_rs

OBJECT, ARRAY, TEXT, NUMBER, TRUE, FALSE, NULL = (1 << bit for bit in range(7))
EVERY = (1 << 7) - 1
TYPES = {
    "object": OBJECT,
    "array": ARRAY,
    "string": TEXT,
    "number": NUMBER,
    "integer": NUMBER,
    "boolean": TRUE | FALSE,
    "null": NULL,
}
OF_TEXTS = ("maxLength", "minLength", "pattern", "format")
OF_NUMBERS = ("multipleOf", "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum")
PATTERNS = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
"""Patterns run in an engine whose time is linear in the text: look-around and back-references are refused."""


def kind_of(value: Any) -> int:
    """The one bit of a JSON value."""
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if value is None:
        return NULL
    if isinstance(value, str):
        return TEXT
    return NUMBER if isinstance(value, int | float) else OBJECT if isinstance(value, dict) else ARRAY


def validator_of(schema: Any, draft: type[jsonschema_rs.Validator]) -> jsonschema_rs.Validator:
    """The whole check's own: nothing is fetched, formats are demands, patterns are linear."""
    return draft(schema, offline=True, validate_formats=True, pattern_options=PATTERNS)


class Plain:
    """One schema object, without what it refers to: the demands that can be told while a text is written."""

    __slots__ = (
        "closed",
        "first",
        "items",
        "max_items",
        "max_length",
        "max_properties",
        "min_items",
        "min_properties",
        "named",
        "numbers",
        "patterns",
        "required",
        "rest",
        "texts",
        "types",
        "words",
    )

    def __init__(self, schema: dict[str, Any], draft: type[jsonschema_rs.Validator], early: bool) -> None:
        self.types, self.words = _types(schema)
        self.named: dict[str, Any] = schema.get("properties", {})
        self.patterns = [
            (validator_of({"pattern": pattern}, draft), below)
            for pattern, below in schema.get("patternProperties", {}).items()
        ]
        self.rest: Any = schema.get("additionalProperties", True)
        self.closed = self.rest is False and not self.patterns
        required = schema.get("required", ())
        self.required = frozenset(required if isinstance(required, list) else ())  # a flag in draft 3
        self.first, self.items = _items(schema, early)
        self.max_items, self.min_items = schema.get("maxItems"), schema.get("minItems", 0)
        self.max_properties, self.min_properties = schema.get("maxProperties"), schema.get("minProperties", 0)
        self.max_length = schema.get("maxLength")
        chosen = [key for key in ("type", "enum", "const") if key in schema]
        self.texts = _checker(schema, chosen, OF_TEXTS, draft)
        whole = "integer" in (schema.get("type") or ())
        self.numbers = _checker(schema, chosen, (*OF_NUMBERS, "type") if whole else OF_NUMBERS, draft)

    def below(self, key: str) -> Iterable[Any]:
        """The schemas that hold for the value of ``key``."""
        found = False
        if key in self.named:
            found = True
            yield self.named[key]
        for pattern, below in self.patterns:
            if pattern.is_valid(key):
                found = True
                yield below
        if not found:
            yield self.rest

    def item(self, place: int) -> Any:
        return self.first[place] if place < len(self.first) else self.items


def _checker(
    schema: dict[str, Any], chosen: Sequence[str], keys: tuple[str, ...], draft: type[jsonschema_rs.Validator]
) -> jsonschema_rs.Validator | None:
    used = [key for key in keys if key in schema]
    if not used and "enum" not in schema and "const" not in schema:
        return None
    return validator_of({key: schema[key] for key in {*chosen, *used}}, draft)


def _types(schema: dict[str, Any]) -> tuple[int, frozenset[str] | None]:
    """Which kinds of value, and which texts where they are counted."""
    types, words = EVERY, None
    named = schema.get("type")
    if named is not None:
        types = 0
        for name in [named] if isinstance(named, str) else named:
            types |= TYPES.get(name, 0)
    for values in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
        if values is not None:
            allowed = 0
            for value in values:
                allowed |= kind_of(value)
            types &= allowed
            texts = frozenset(value for value in values if isinstance(value, str))
            words = texts if words is None else words & texts
    if words is not None and not words:
        types &= ~TEXT
    return types, words


def _items(schema: dict[str, Any], early: bool) -> tuple[list[Any], Any]:
    """Schemas of the first items, and of all behind them; ``items`` was both before draft 2020-12."""
    if not early:
        return schema.get("prefixItems", []), schema.get("items", True)
    items = schema.get("items", True)
    return (items, schema.get("additionalItems", True)) if isinstance(items, list) else ([], items)
