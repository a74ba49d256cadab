"""Running text without end, of plain sentences that no code, key or name of a case occurs in."""

from __future__ import annotations

import random

WHO = """
baker clerk gardener teacher sailor farmer painter singer doctor driver neighbour shepherd carpenter tailor miller
""".split()  # noqa: SIM905 - a list of strings would fill the page
WHERE = """
harbour market garden library station bridge kitchen orchard workshop meadow church tower cellar courtyard river
""".split()  # noqa: SIM905 - as above
WHAT = """
rope bread letters apples paint candles wool timber songs lamps boots maps herbs clocks baskets
""".split()  # noqa: SIM905 - as above
WHEN = ("in the morning", "before noon", "after the rain", "late in the evening", "on a quiet day", "every winter")
HOW = ("slowly", "with care", "without a word", "in good spirits", "as always", "for the first time")
FORMS = (
    "The {a} walked to the {x} {t} and spoke with the {b} about {y}.",
    "{T}, the {a} carried {y} from the {x} to the {z} {h}.",
    "Nobody at the {x} knew why the {a} had left the {y} beside the {z}.",
    "The {b} and the {a} met at the {x} {t}, and they talked {h} about {y}.",
    "There were {y} in the {x}, and the {a} counted them {h}.",
    "When the {a} came back from the {x}, the {b} had sold the {y} {h}.",
)


def prose(rng: random.Random, characters: int) -> str:
    """At least ``characters`` characters of paragraphs."""
    parts, length = list[str](), 0
    while length < characters:
        first, second = rng.sample(WHO, 2)
        near, far = rng.sample(WHERE, 2)
        time = rng.choice(WHEN)
        sentence = rng.choice(FORMS).format(
            a=first, b=second, x=near, z=far, y=rng.choice(WHAT), t=time, T=time.capitalize(), h=rng.choice(HOW)
        )
        parts.append(sentence + ("\n\n" if rng.random() < 0.15 else " "))
        length += len(parts[-1])
    return "".join(parts)
