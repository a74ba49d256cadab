"""json_depth: data told in sentences has to come back as JSON of a given schema, at rising depth.

Objects nest ``depth`` levels; every level has its own texts, numbers, flags and lists. The prompt states the schema,
and an engine that can hold answers to one is told it as well (``answer_schema``). The form alone is worth nothing: the
values must be those of the text.
"""

from __future__ import annotations

import json
import random
from typing import Any

from pydantic import Field

from quantgate.errors import UsageError
from quantgate.evaluate.tailored import Options as Base
from quantgate.evaluate.tailored import Piece, Place, Problem, Tailored

DEEPEST = 8
TRIED, SPARE = 8, 1.15
OBJECTS = """
order customer address depot vehicle driver contract invoice supplier product warehouse shelf crate sender route
""".split()  # noqa: SIM905 - a list of strings would fill the page
TEXTS = {
    "city": "Oslo Rome Lima Cairo Quito Turin Ghent Porto Hanoi Perth".split(),  # noqa: SIM905
    "colour": "red green blue white black yellow grey brown".split(),  # noqa: SIM905
    "status": "open closed waiting shipped paid returned".split(),  # noqa: SIM905
    "owner": "Marta Ivan Chen Aisha Noor Pavel Lucia Tomas Ines Omar".split(),  # noqa: SIM905
}
NUMBERS = ("count", "weight", "floor", "price", "year")
FLAGS = ("urgent", "insured", "fragile", "active")
LISTS = ("codes", "shelves", "days")
FRAME = """{told}

Write this down as one JSON object that keeps the following JSON schema. Answer with the JSON alone.
{schema}"""


class Options(Base):
    depths: tuple[int, ...] = Field(
        default=(), description=f"levels of objects in each other, 1 to {DEEPEST}; left out, those of 1 to 5 that fit"
    )


def cells(place: Place, options: Options) -> list[int]:
    """The depths asked. Raises UsageError for one that cannot be, or does not fit the context."""
    fit = []
    for depth in options.depths or range(1, 6):
        if not 1 <= depth <= DEEPEST:
            raise UsageError(f"json_depth: options: depth {depth} is not between 1 and {DEEPEST}")
        needed = _needed(place, depth)
        if needed <= place.context:
            fit.append(depth)
        elif options.depths:
            raise UsageError(
                f"json_depth: options: depth {depth} takes about {needed} tokens, the context holds {place.context}; "
                "leave it out"
            )
    return fit


def _needed(place: Place, depth: int) -> int:
    """Tokens of prompt and answer of the largest of a few problems, and some to spare."""
    drawn = [draw(random.Random(seed), depth, place, Options())[1]() for seed in range(TRIED)]
    return round(SPARE * max(place.measure(tuple(one.messages), ()) + one.max_tokens for one in drawn))


def draw(rng: random.Random, depth: int, place: Place, options: Options) -> Problem:
    names = rng.sample(OBJECTS, depth)
    value: dict[str, Any] = {}
    for name in reversed(names):
        value = {name: _fields(rng) | value}
    chance = rng.getrandbits(64)

    def write() -> Piece:
        told = sentences(value)
        random.Random(chance).shuffle(told)
        schema = schema_of(value)
        answer = json.dumps(value)
        return Piece(
            identity=answer,
            messages=[("user", FRAME.format(told=" ".join(told), schema=json.dumps(schema)))],
            answer=answer,
            scorer="json_schema",
            reference={"schema": schema, "equals": value},
            slices={"depth": str(depth)},
            max_tokens=len(place.encode(json.dumps(value, indent=4))) + 16,
            answer_schema=schema,
        )

    return json.dumps(value), write


def _fields(rng: random.Random) -> dict[str, Any]:
    """Three or four values of different types."""
    text, number = rng.choice(list(TEXTS)), rng.choice(NUMBERS)
    found: dict[str, Any] = {text: rng.choice(TEXTS[text]), number: rng.randrange(2, 2000)}
    found[rng.choice(FLAGS)] = rng.random() < 0.5
    if rng.random() < 0.5:
        found[rng.choice(LISTS)] = rng.sample(range(1, 100), rng.choice((2, 3)))
    items = list(found.items())
    rng.shuffle(items)
    return dict(items)


def sentences(value: dict[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """One sentence for every value.

    >>> sentences({"order": {"city": "Oslo", "customer": {"urgent": True}}})
    ['The city of the order is "Oslo".', 'The urgent flag of the customer of the order is true.']
    """
    found: list[str] = []
    for key, one in value.items():
        if isinstance(one, dict):
            found += sentences(one, (*path, key))
            continue
        where = "".join(f" of the {name}" for name in reversed(path))
        what = f"{key} flag" if isinstance(one, bool) else f"list of {key}" if isinstance(one, list) else key
        found.append(f"The {what}{where} is {json.dumps(one)}.")
    return found


def schema_of(value: Any) -> dict[str, Any]:
    """The JSON schema of values of this shape: every key required and no other."""
    if isinstance(value, dict):
        properties = {key: schema_of(one) for key, one in value.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        return {"type": "array", "items": {"type": "integer"}}
    return {"type": "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "string"}


TAILORED = Tailored(
    name="json_depth",
    about="Structured output breaks, or its values drift, once objects are nested a few levels deep.",
    options=Options,
    cells=cells,
    draw=draw,
)
