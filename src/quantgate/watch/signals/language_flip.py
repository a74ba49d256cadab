"""language_flip: the question is clearly in one language, the answer clearly in another, and nobody asked for that.

Told by script and function words (``calibrate.language``), at both ends of each text; near relatives, such as Danish
and Norwegian, are one. What is short, mixed, code or JSON tells nothing, and neither does a request that names a
language or asks to translate, nor an answer in a language that the user wrote in before or the system prompt names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from quantgate.calibrate.language import by_script
from quantgate.manner import QUOTED
from quantgate.watch import Talk, plain
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch.signals._tongues import KIN, LANGUAGES, NAMES, STRANGERS, TRANSLATE, words_of

READ = 240  # characters at either end ...
EDGE = 120  # and of those, a sentence
LETTERS = 12  # of a script that stands for one language
WORDS = 4  # function words ...
SHARE = 0.15  # ... of all words
LEAD = 1.5  # times those of the next language that is no kin
NOISE = re.compile(r"https?://\S+|[\w.+-]{1,64}@\S+|<[^<>]{1,80}>")
TURNS = 8  # of the user, the newest, in which the answer's language may have been used before


def mark(talk: Talk) -> float | None:
    text = talk.said.strip()
    if talk.structured or not text or text[0] in "{[<" or not talk.prompt or talk.prompt[-1].get("role") == "tool":
        return None
    asked = talk.asked
    wanted = tongue(asked)
    if wanted is None:
        return None
    ends = {found for part in both_ends(text) if (found := clear(part)) is not None}
    if not ends:
        return None
    others = ends - {wanted}
    if not others:
        return 0.0
    return None if _asked_for(others, talk, asked) else 1.0


def tongue(text: str) -> str | None:
    """The one language that a prompt is clearly in; None where its ends are not, or a sentence at either is not in it.

    "Fasse das zusammen:" before a page of English may be answered in both.
    """
    ends = list(both_ends(text))
    found = {clear(part) for part in ends}
    found |= {name for edge in (ends[0][:EDGE], ends[-1][-EDGE:]) if (name := clear(edge)) is not None}
    return found.pop() if len(found) == 1 else None


def both_ends(text: str) -> Iterator[str]:
    """Its beginning, and where it is much longer its end, without code, quotes and addresses."""
    if len(text) > 65_536:
        text = f"{text[:32_768]}\n{text[-32_768:]}"
    if "`" in text or '"' in text:
        text = QUOTED.sub(" ", text)
    yield _plain(text[:READ])
    if len(text) > 2 * READ:
        yield _plain(text[-READ:])


def _plain(text: str) -> str:
    return NOISE.sub(" ", text) if "http" in text or "@" in text or "<" in text else text


def clear(text: str) -> str | None:
    """The language, or the name of its kin.

    >>> clear("Wo ist die Katze, und was hat sie mit dem Hund gemacht?"), clear("ok, 42"), clear("Der cat ist on the")
    ('de', None, None)
    """
    if found := by_script(text):
        return KIN.get(found, found) if sum(map(str.isalpha, text)) >= LETTERS else None
    count, hits = words_of(text)
    most = max(hits)
    if most < WORDS or most < SHARE * count:
        return None
    best = LANGUAGES[hits.index(most)]
    kin = KIN.get(best, best)
    return kin if most >= LEAD * max(map(hits.__getitem__, STRANGERS[kin])) else None


def _asked_for(others: set[str], talk: Talk, asked: str) -> bool:
    if TRANSLATE.search(asked) or any(pattern.search(asked) for pattern in NAMES.values()):
        return True
    turns = [one for one in talk.prompt if one.get("role") == "user"][-TURNS - 1 : -1]
    rules = " ".join(plain(one.get("content")) for one in talk.prompt if one.get("role") in ("system", "developer"))
    spoken = {found for one in turns for part in both_ends(plain(one.get("content"))) if (found := clear(part))}
    return all(one in spoken or (one in NAMES and NAMES[one].search(rules)) for one in others)


SIGNAL = Signal(
    name="language_flip",
    about="answers in another language than the question",
    kind="event",
    read=of_mark("language_flip"),
    weight=1.5,
    mark=mark,
)
