"""key_value: the value of one key in a long JSON object of random identifiers, over depth x length in tokens.

Nothing but exact copying helps: every key and every value is a random UUID, and one wrong character is a wrong answer.
The object has as many whole pairs as fit the length.
"""

from __future__ import annotations

import json
import random
import uuid

from quantgate.evaluate.tailored import Lengths, Piece, Place, Problem, Tailored, fitted, grid

BUDGET = 96  # tokens of an answer: a UUID is up to 36 of them, and a sentence may stand around it
DECOYS = 3
FRAME = "{pairs}\n\nWhat is the value of the key {key} in the JSON object above? Answer with the value only."


def cells(place: Place, options: Lengths) -> list[tuple[int, float]]:
    return grid(place, options, "key_value", BUDGET)


def draw(rng: random.Random, cell: tuple[int, float], place: Place, options: Lengths) -> Problem:
    length, depth = cell
    key, value, chance = _uuid(rng), _uuid(rng), rng.getrandbits(64)

    def write() -> Piece:
        again = random.Random(chance)
        others = [(_uuid(again), _uuid(again)) for _ in range(DECOYS + length // 16)]  # more than fit

        def text(size: int, _end: str) -> str:
            pairs = others[: DECOYS + size]
            pairs.insert(round(depth * len(pairs)), (key, value))
            return FRAME.format(pairs=json.dumps(dict(pairs), indent=0), key=key)

        shown = fitted(text, len(others) - DECOYS, length, lambda one: place.measure((("user", one),), ()), ())
        return Piece(
            identity=f"{key} {value}",
            messages=[("user", shown)],
            answer=value,
            scorer="contains",
            reference={"all": [value], "none": [other for _, other in others[:DECOYS]]},
            slices={"length": str(length), "depth": f"{depth:g}"},
            max_tokens=BUDGET,
        )

    return f"{key} {value}", write


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


TAILORED = Tailored(
    name="key_value",
    about="Identifiers far back in a prompt are no longer copied exactly.",
    options=Lengths,
    cells=cells,
    draw=draw,
)
