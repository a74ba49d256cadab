"""Schemas drawn at random, values that keep them and values that do not, and a judge of its own for both.

The judge knows only what is drawn here, in a few lines; it shares nothing with the gateway's validator.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
WORDS = (
    "alpha",
    "bravo",
    "Ωmega",
    'with "quotes"',
    "back\\slash",
    "tab\tand\nline",
    "",
    "a longer text of some words",
    "日本",
)
WRONG: tuple[Any, ...] = ({"an": ["object"]}, [[]], -(10**9), "x" * 60, 1.5, True, None)
KINDS = ("object", "array", "string", "integer", "number", "boolean", "enum", "nothing", "either", "referred")


def schema(draw: random.Random, depth: int = 3) -> Json:
    """The schema of an object, the parts of it drawn."""
    made = _object(draw, depth)
    made["$defs"] = {"leaf": {"type": "string", "maxLength": 30}}
    return made


def _object(draw: random.Random, depth: int) -> Json:
    names = draw.sample(["name", "count", "items", "kind", "note", "größe", "a b", "x"], draw.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: _any(draw, depth - 1) for name in names},
        "required": sorted(draw.sample(names, draw.randint(1, len(names)))),
        "additionalProperties": False,
    }


def _any(draw: random.Random, depth: int) -> Json:
    match draw.choice(KINDS if depth > 0 else KINDS[2:]):
        case "object":
            return _object(draw, depth)
        case "array":
            low = draw.randint(0, 2)
            return {"type": "array", "items": _any(draw, depth - 1), "minItems": low, "maxItems": low + 2}
        case "string":
            return {"type": "string", "minLength": draw.randint(0, 2), "maxLength": 40}
        case "integer":
            low = draw.randint(-5, 5)
            return {"type": "integer", "minimum": low, "maximum": low + draw.randint(0, 1000)}
        case "number":
            return {"type": "number", "exclusiveMinimum": 0}
        case "boolean":
            return {"type": "boolean"}
        case "enum":
            return {"enum": draw.sample(["red", "green", 1, 2.5, None, True], 3)}
        case "nothing":
            return {"type": "null"}
        case "either":
            return {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "maxLength": 40}]}
    return {"$ref": "#/$defs/leaf"}


def value(draw: random.Random, of: Json) -> Any:
    """One that keeps it."""
    match of:
        case {"enum": allowed}:
            return draw.choice(allowed)
        case {"anyOf": ways}:
            return value(draw, draw.choice(ways))
        case {"$ref": _}:
            return draw.choice(WORDS)
        case {"type": "object"}:
            return {
                name: value(draw, part)
                for name, part in of["properties"].items()
                if name in of["required"] or draw.random() < 0.5
            }
        case {"type": "array"}:
            return [value(draw, of["items"]) for _ in range(draw.randint(of["minItems"], of["maxItems"]))]
        case {"type": "string"}:
            return draw.choice([word for word in WORDS if len(word) >= of.get("minLength", 0)])
        case {"type": "integer"}:
            return draw.randint(of["minimum"], of.get("maximum", 10**6))
        case {"type": "number"}:
            return draw.choice([0.5, 3, 1e-3, 12345.678])
        case {"type": "boolean"}:
            return draw.random() < 0.5
    return None


def keeps(given: Any, of: Json) -> bool:
    """Whether a value keeps a schema that was drawn here."""
    match of:
        case {"enum": allowed}:
            return any(type(given) is type(one) and given == one for one in allowed)
        case {"anyOf": ways}:
            return any(keeps(given, way) for way in ways)
        case {"$ref": _}:
            return isinstance(given, str) and len(given) <= 30
        case {"type": "object"}:
            parts = of["properties"]
            return (
                isinstance(given, dict)
                and set(of["required"]) <= set(given) <= set(parts)
                and all(keeps(one, parts[name]) for name, one in given.items())
            )
        case {"type": "array"}:
            return (
                isinstance(given, list)
                and of["minItems"] <= len(given) <= of["maxItems"]
                and all(keeps(one, of["items"]) for one in given)
            )
        case {"type": "string"}:
            return isinstance(given, str) and of.get("minLength", 0) <= len(given) <= of["maxLength"]
        case {"type": "boolean"}:
            return isinstance(given, bool)
        case {"type": "null"}:
            return given is None
    if isinstance(given, bool) or not isinstance(given, int | float):
        return False
    if of["type"] == "integer":
        return given == int(given) and of["minimum"] <= given <= of.get("maximum", given)
    return given > 0


def lies(draw: random.Random, of: Json) -> Iterator[str]:
    """Texts that are not what the schema asks for; some hold it somewhere, and a repair may find it."""
    good = value(draw, of)
    text = json.dumps(good, ensure_ascii=draw.random() < 0.5)
    required = of["required"][0]
    yield from (text[: max(1, len(text) // 2)], text[:-1], text + "}", text + text, text + " and more", "")
    yield from ("I cannot do that.", "null", "[]", '"text"', "{}", "{", "\x00" + text, text.replace(":", "=", 1))
    yield json.dumps({**good, "nobody asked": 1})
    yield json.dumps({name: one for name, one in good.items() if name != required})
    yield f"```json\n{text}\n```"
    yield f"Here it is: {text}"
    yield text.replace("{", "{ // a comment\n", 1)
    yield text[:-1] + ", }"
    yield text[:-1] + ', "' + required + '": NaN}'
    yield "{'single': 'quotes'}"
    yield text[:1] + " " * 5000 + text[1:]
    yield from _bent(draw, of, good)


def _bent(draw: random.Random, of: Json, good: Json) -> Iterator[str]:
    """One member of a value that is right becomes wrong."""
    for name in good:
        for wrong in WRONG:
            bent = {**good, name: wrong}
            if not keeps(bent, of):
                yield json.dumps(bent)
                break


def cut(draw: random.Random, text: str) -> list[str]:
    """A text in pieces of one to nine characters."""
    pieces = []
    while text:
        size = draw.randint(1, 9)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def cases(seed: int, schemas: int) -> Iterator[tuple[Json, str, bool]]:
    """(schema, text, whether the text keeps it), the same ones for the same seed."""
    draw = random.Random(seed)
    for _ in range(schemas):
        made = schema(draw)
        for _ in range(2):
            good = value(draw, made)
            write: Callable[..., str] = json.dumps
            yield made, write(good, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 1])), True
        for text in draw.sample(list(lies(draw, made)), 5):
            yield made, text, False
