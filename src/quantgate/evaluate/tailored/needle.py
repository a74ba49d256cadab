"""needle: one sentence somewhere in a long running text has to be found, over depth x length in tokens.

The sentence gives a number for a name; a few more give other numbers for other names, so an answer that repeats the
text, or picks any number, is wrong. The text is a file of the user's (``haystack``), cut elsewhere for every case, or
plain prose made by the seed.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from quantgate.errors import DataError
from quantgate.evaluate.tailored import Lengths, Piece, Place, Problem, Tailored, fitted, grid
from quantgate.evaluate.tailored._prose import prose

BUDGET = 32  # tokens of an answer
WIDEST = 12  # characters of a token, at most, on average
DECOYS = 3
OPENINGS = """
amber birch cedar delta ember falcon garnet heron indigo jasper kestrel lotus maple nickel onyx pebble quartz raven
saffron topaz umber violet walnut zinc
""".split()  # noqa: SIM905 - a list of strings would fill the page
PLACES = """
bay bend cape cliff cove creek dale field gate glen grove hall heath hill isle lane mill moor peak pond ridge shore
vale well
""".split()  # noqa: SIM905 - as above
SENTENCE = "The access number of {name} is {number}."
FRAME = "{text}\n\nWhat is the access number of {name}, as the text above says? Answer with the number only."


class Options(Lengths):
    haystack: str | None = Field(default=None, description="text file to hide the sentence in; left out, made-up prose")


def cells(place: Place, options: Options) -> list[tuple[int, float]]:
    return grid(place, options, "needle", BUDGET)


def draw(rng: random.Random, cell: tuple[int, float], place: Place, options: Options) -> Problem:
    length, depth = cell
    names = [
        f"{one} {other}"
        for one, other in zip(rng.sample(OPENINGS, DECOYS + 1), rng.sample(PLACES, DECOYS + 1), strict=True)
    ]
    numbers = [str(one) for one in rng.sample(range(10000, 100000), DECOYS + 1)]
    chance = rng.getrandbits(64)

    def write() -> Piece:
        again = random.Random(chance)
        hay = _hay(again, options.haystack, WIDEST * length)
        depths = [depth, *(again.random() for _ in range(DECOYS))]
        needles = [SENTENCE.format(name=name, number=number) for name, number in zip(names, numbers, strict=True)]

        def text(size: int, end: str) -> str:
            body = hay[:size].rstrip() + end
            for needle, at in zip(reversed(needles), reversed(depths), strict=True):  # the one that is asked for last
                body = hidden(body, needle, at)
            return FRAME.format(text=body.strip(), name=names[0])

        shown = fitted(text, len(hay), length, lambda one: place.measure((("user", one),), ()))
        return Piece(
            identity=identity,
            messages=[("user", shown)],
            answer=numbers[0],
            scorer="contains",
            reference={"all": [numbers[0]], "none": numbers[1:]},
            slices={"length": str(length), "depth": f"{depth:g}"},
            max_tokens=BUDGET,
        )

    identity = f"{names[0]} {numbers[0]}"
    return identity, write


def hidden(hay: str, needle: str, depth: float) -> str:
    """``hay`` with the needle between two sentences, where its beginning comes nearest to ``depth`` of the whole.

    >>> hidden("One is here. Two is there. Three", "X.", 0.4)
    'One is here. X. Two is there. Three'
    """
    aim = round(depth * (len(hay) + len(needle)))
    ends = [0, len(hay)]
    for mark in (". ", "\n"):
        before, behind = hay.rfind(mark, 0, aim + 1), hay.find(mark, aim)
        ends += [found + len(mark) for found in (before, behind) if found >= 0]
    at = min(ends, key=lambda end: (abs(end - aim), end))
    left = hay[:at]
    return f"{left}{'' if not left or left[-1].isspace() else ' '}{needle} {hay[at:]}"


def _hay(rng: random.Random, file: str | None, characters: int) -> str:
    """So many characters of the file, from a place drawn at random and around its end, or of made-up prose."""
    if file is None:
        return prose(rng, characters)
    text = _read(file)
    start = rng.randrange(len(text))
    start = text.find("\n", start) + 1 or 0
    return (text[start:] + text[:start])[:characters]


@lru_cache(maxsize=4)
def _read(file: str) -> str:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; name a text file under options: haystack") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({problem}); name another under haystack") from None
    if not text.strip():
        raise DataError(f"{file}: is empty; name a text file under options: haystack")
    return text


TAILORED = Tailored(
    name="needle",
    about="A fact stated once in a long text is no longer found, at some depths and lengths first.",
    options=Options,
    cells=cells,
    draw=draw,
)
