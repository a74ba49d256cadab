"""rare_traffic: the user's own rare words and identifiers, to be copied, spelled, put into gaps and looked up.

Product names, part numbers and terms of a trade are what a tokenizer cuts into many pieces and what quantization
damages first. They are taken from the user's traffic, from conversations that calibration leaves alone (``held_out``),
and need no labels: every answer stands in the prompt. A word is rare where the tokenizer, which keeps frequent words
whole, needs ``pieces`` tokens or more for it; words of a ``background`` file, such as a general text, can be left out.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from quantgate.errors import DataError
from quantgate.evaluate.tailored import Options as Base
from quantgate.evaluate.tailored import Piece, Place, Problem, Tailored

WORD = re.compile(r"[^\W_](?:[\w./:+#-]*[^\W_])")
SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?=\S)[^.!?\n]*)*[.!?]?")
LONGEST_WORD, LONGEST_SENTENCE = 40, 240  # characters
SHORTEST_WORD, ROWS = 4, 6
FEWEST = 2 * ROWS  # rare words that a suite can be made of
KINDS = ("copy", "spell", "gap", "lookup", "reverse")
FRAMES = {
    "copy": "Repeat the following word exactly, and write nothing else: {word}",
    "spell": "Spell {word} letter by letter, with a hyphen between the characters. Answer with the spelling alone.",
    "gap": "Here is a text:\n{text}\n\nHere it is again, with a gap:\n{gap}\n\n"
    "Which word or name is missing in the gap? Answer with it alone.",
    "lookup": "{table}\n\nWhich code stands beside {word} in the table? Answer with the code alone.",
    "reverse": "{table}\n\nWhich name stands beside {code} in the table? Answer with the name alone.",
}


class Options(Base):
    pieces: int = Field(default=3, ge=2, description="tokens that a rare word has at least")
    background: str | None = Field(default=None, description="text file whose words are not rare")
    kinds: tuple[str, ...] = Field(default=KINDS, description=f"of {', '.join(KINDS)}")


def cells(place: Place, options: Options) -> list[str]:
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        raise DataError(f"rare_traffic: options: '{unknown[0]}' is no kind; known: {', '.join(KINDS)}")
    found = len(rare_words(place, options))
    if found < FEWEST:
        raise DataError(
            f"rare_traffic: {found} rare words in {len(place.traffic)} held-out conversations, {FEWEST} are needed; "
            "give more traffic, or lower options: pieces"
        )
    return list(options.kinds)


@lru_cache(maxsize=8)
def rare_words(place: Place, options: Options) -> dict[str, tuple[str, ...]]:
    """Rare words of the traffic, and short sentences in which each of them stands once."""
    common = _background(options.background)
    found: dict[str, list[str]] = {}
    pieces: dict[str, int] = {}
    for turns in place.traffic:
        for role, content in turns:
            for sentence in SENTENCE.findall(content) if role in ("user", "assistant") else ():
                words = WORD.findall(sentence)
                for word in words:
                    if not SHORTEST_WORD <= len(word) <= LONGEST_WORD or word.casefold() in common:
                        continue
                    if word not in pieces:
                        pieces[word] = len(place.encode(f" {word}"))
                    if pieces[word] >= options.pieces:
                        kept = found.setdefault(word, [])
                        if words.count(word) == 1 and len(words) > 3 and len(sentence) <= LONGEST_SENTENCE:
                            kept.append(" ".join(sentence.split()))
    return {word: tuple(found[word]) for word in sorted(found)}


@lru_cache(maxsize=2)
def _background(file: str | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({problem}); name another under background") from None
    return frozenset(word.casefold() for word in WORD.findall(text))


def draw(rng: random.Random, kind: str, place: Place, options: Options) -> Problem:
    words = rare_words(place, options)
    chosen = rng.sample(list(words), ROWS)
    word = chosen[0]
    if kind == "gap" and not words[word]:
        kind = "copy"
    codes = [str(one) for one in rng.sample(range(1000, 10000), ROWS)]
    sentence = rng.choice(words[word]) if kind == "gap" else ""
    order = rng.sample(range(ROWS), ROWS)

    def write() -> Piece:
        table = "\n".join(["name | code", *(f"{chosen[at]} | {codes[at]}" for at in order)])
        gap = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "____", sentence, count=1)
        asked = FRAMES[kind].format(word=word, text=sentence, gap=gap, table=table, code=codes[0])
        answer = {"spell": "-".join(word), "lookup": codes[0]}.get(kind, word)
        return Piece(
            identity=identity,
            messages=[("user", asked)],
            answer=answer,
            scorer="exact",
            reference={"accept": [answer], "case": True},
            slices={"kind": kind, "pieces": str(min(8, len(place.encode(f" {word}"))))},
            max_tokens=2 * len(place.encode(answer)) + 16,
        )

    identity = f"{word}\0{kind}"
    return identity, write


TAILORED = Tailored(
    name="rare_traffic",
    about="Names, part numbers and terms of the product's own trade come out misspelled or swapped.",
    options=Options,
    cells=cells,
    draw=draw,
    of_traffic=True,
)
