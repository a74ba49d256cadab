"""One JSON schema: admitted, or refused with a sentence; then held against whole texts and against their beginnings.

Draft 2020-12 unless ``$schema`` names an older one. Beyond the drafts, ``format`` is a demand wherever the validator
knows the format, and patterns are those that can be searched for in time linear in the text. Nothing is ever fetched.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson

from quantgate.errors import SchemaRefused
from quantgate.guard import Fault
from quantgate.guard.limits import DEFAULT, Limits
from quantgate.guard.plain import validator_of
from quantgate.guard.prefix import Reader
from quantgate.guard.reading import NotJson, read, shown
from quantgate.guard.shapes import Shapes, resolve

NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
LISTED = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
SINGLE = ("additionalProperties", "additionalItems", "items", "contains", "propertyNames", "not", "if", "then", "else",
          "unevaluatedItems", "unevaluatedProperties", "contentSchema")  # fmt: skip
BLANK = " \t\r\n"
LONGEST = 160  # characters of a fault's sentence that come from the validator
CHAIN = 200  # references within references, at one place


class Schema:
    """A schema that was admitted. Keeps no state of any answer."""

    __slots__ = ("_limits", "_shapes", "_validator", "raw")

    def __init__(self, raw: Any, param: str, limits: Limits = DEFAULT, deadline_s: float | None = None) -> None:
        """Raises SchemaRefused with ``param``. ``deadline_s``: monotonic, when compiling must be done."""
        deadline_s = time.monotonic() + limits.compile_s if deadline_s is None else deadline_s
        self.raw, self._limits = raw, limits
        self._validator, self._shapes = _compiled(raw, param, limits, deadline_s)

    def prefix(self, where: str) -> Reader:
        return Reader(self._shapes.start, where, self._limits)

    def fault(self, text: str, where: str) -> Fault | None:
        """Of a whole text."""
        if not text or text.isspace():
            return Fault("empty", where, "the answer is empty")
        try:
            value = read(text, depth=self._limits.depth)
        except NotJson as broken:
            return Fault("not_json", where, str(broken)[:LONGEST])
        if _blank_run(text, self._limits.whitespace + 1):
            blank = Reader(self._shapes.start, where, self._limits).feed(text)
            if blank is not None and blank.kind == "whitespace":
                return blank
        try:
            if self._validator.is_valid(value):
                return None
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as wrong:
            return Fault("schema", where, _sentence(wrong))
        except ValueError as unfit:
            return Fault("schema", where, f"the JSON cannot be checked: {unfit}"[:LONGEST])
        return Fault("schema", where, "the schema does not allow it")


def _blank_run(text: str, length: int) -> bool:
    """Whether ``length`` blanks stand in a row: such a run covers a place that ``length`` divides.

    >>> _blank_run("a   b", 3), _blank_run("a   b", 4)
    (True, False)
    """
    for place in range(0, len(text), length):
        if text[place] in BLANK:
            before = text[max(0, place - length) : place]
            behind = text[place : place + length]
            if len(before) - len(before.rstrip(BLANK)) + len(behind) - len(behind.lstrip(BLANK)) >= length:
                return True
    return False


def _sentence(wrong: jsonschema_rs.ValidationError) -> str:
    path = ".".join(shown(str(part)) for part in wrong.instance_path[:16])
    message = wrong.message if len(wrong.message) <= LONGEST else wrong.message[: LONGEST - 3] + "..."
    return f"'{path}': {message}" if path else message


def _compiled(raw: Any, param: str, limits: Limits, deadline_s: float) -> tuple[jsonschema_rs.Validator, Shapes]:
    _size(raw, param, limits)
    draft = _draft(raw, param)
    _walk(raw, draft, param, limits, deadline_s)
    try:
        validator = validator_of(raw, draft)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as bad:
        raise SchemaRefused(_bad(bad), param=param) from None
    shapes = Shapes(raw, draft)
    if not shapes.start:
        raise SchemaRefused("the schema allows no value at all", param=param)
    if time.monotonic() > deadline_s:
        raise SchemaRefused(f"the schema takes longer than {limits.compile_s:g} s to compile", param=param)
    return validator, shapes


def _size(raw: Any, param: str, limits: Limits) -> None:
    if not isinstance(raw, dict | bool):
        raise SchemaRefused(f"a schema is an object, not {type(raw).__name__}", param=param)
    row: list[Any] = [raw]
    for _ in range(limits.schema_depth + 1):
        row = [one for one in row if isinstance(one, dict | list)]
        if not row:
            break
        row = [item for one in row for item in (one.values() if isinstance(one, dict) else one)]
    else:
        raise SchemaRefused(f"the schema is nested deeper than {limits.schema_depth} brackets", param=param)
    try:
        size = len(orjson.dumps(raw))
    except (TypeError, ValueError) as unfit:
        raise SchemaRefused(f"the schema is not JSON: {unfit}", param=param) from None
    if size > limits.schema_bytes:
        raise SchemaRefused(f"the schema has {size:,} bytes; at most {limits.schema_bytes:,} are taken", param=param)


def _draft(raw: Any, param: str) -> type[jsonschema_rs.Validator]:
    named = raw.get("$schema") if isinstance(raw, dict) else None
    if named is None:
        return jsonschema_rs.Draft202012Validator
    known = "expected one of JSON Schema's drafts 4, 6, 7, 2019-09 and 2020-12"
    if not isinstance(named, str):
        raise SchemaRefused(f"$schema is not a text; {known}", param=param)
    if not re.fullmatch(r"https?://json-schema\.org/(draft-0[467]|draft/2019-09|draft/2020-12)/schema#?", named):
        raise SchemaRefused(f"$schema names {named[:80]!r}; {known}", param=param)
    return jsonschema_rs.validator_cls_for({"$schema": named})


def below(schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas that stand within one, by its keywords: data in ``const``, ``enum`` or ``default`` is none."""
    for key in NAMED:
        if isinstance(schema.get(key), dict):
            yield from schema[key].values()
    for key in LISTED:
        if isinstance(schema.get(key), list):
            yield from schema[key]
    for key in SINGLE:
        if isinstance(schema.get(key), dict):
            yield schema[key]


def _walk(raw: Any, draft: type[jsonschema_rs.Validator], param: str, limits: Limits, deadline_s: float) -> None:
    """Every schema within, and whatever a reference leads to: patterns, references, branches."""
    seen: set[int] = set()
    patterns: set[str] = set()
    costs = _Costs(raw, param, limits)
    row = [raw]
    while row:
        schema = row.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        row += below(schema)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            row.append(resolve(raw, reference)[1])
        costs.at(schema)
        for pattern in (schema.get("pattern"), *_keys(schema.get("patternProperties"))):
            if isinstance(pattern, str) and pattern not in patterns:
                patterns.add(pattern)
                _search(pattern, draft, param)
        if len(patterns) > limits.patterns:
            raise SchemaRefused(f"more than {limits.patterns} different patterns", param=param)
        if time.monotonic() > deadline_s:
            raise SchemaRefused(f"the schema takes longer than {limits.compile_s:g} s to compile", param=param)


def _keys(named: Any) -> Iterator[str]:
    yield from named if isinstance(named, dict) else ()


def _search(pattern: str, draft: type[jsonschema_rs.Validator], param: str) -> None:
    try:
        validator_of({"pattern": pattern}, draft)
    except (jsonschema_rs.ValidationError, ValueError):
        sentence = (
            f"pattern {pattern[:80]!r} is no regular expression that can be searched for in linear time: "
            "it is broken, too large, or looks around or back"
        )
        raise SchemaRefused(sentence, param=param) from None


class _Costs:
    """How many ways lead through the branches of one place. Compilers of grammars multiply them out."""

    def __init__(self, root: Any, param: str, limits: Limits) -> None:
        self._root, self._param, self._limits = root, param, limits
        self._known: dict[int, int] = {}

    def at(self, schema: Any, chain: int = 0) -> int:
        if not isinstance(schema, dict):
            return 1
        mark = id(schema)
        if mark in self._known:
            return self._known[mark]
        self._known[mark] = 1  # of a way that comes back to where it began
        if chain > CHAIN:
            raise SchemaRefused(f"more than {CHAIN} references within each other", param=self._param)
        self._known[mark] = ways = self._ways(schema, chain + 1)
        if ways > self._limits.branches:
            sentence = f"anyOf, oneOf and allOf make more than {self._limits.branches:,} branches at one place"
            raise SchemaRefused(sentence, param=self._param)
        return ways

    def _ways(self, schema: dict[str, Any], chain: int) -> int:
        ways = 1
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                ways *= max(1, sum(self.at(one, chain) for one in schema[key]))
        for one in schema["allOf"] if isinstance(schema.get("allOf"), list) else ():
            ways *= self.at(one, chain)
        if "if" in schema:
            ways *= self.at(schema.get("then"), chain) + self.at(schema.get("else"), chain)
        for named in ("dependentSchemas", "dependencies"):
            for one in schema[named].values() if isinstance(schema.get(named), dict) else ():
                ways *= self.at(one, chain)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            ways *= self.at(resolve(self._root, reference)[1], chain)
        return ways


def _bad(bad: Exception) -> str:
    """The first line of the compiler's sentence, and where in the schema."""
    first = (str(bad).splitlines() or ["it cannot be compiled"])[0]
    path = "/".join(str(part) for part in getattr(bad, "instance_path", [])[:16])
    if "etriev" in first or "registry" in first:
        first = "a reference leads out of it, and nothing is fetched; use #/$defs/..."
    return f"not a JSON schema{f', at {path}' if path else ''}: {first[:LONGEST]}"
