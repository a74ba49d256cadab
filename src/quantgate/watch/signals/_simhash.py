"""Prompts as 64 bits under a key: two that say nearly the same differ in few bits, and the bits tell no words.

SimHash (Charikar 2002; Manku, Jain and Das Sarma 2007): every feature of a text has 64 random bits, here BLAKE2b under
the key of the gateway, and each bit of the hash is what most features have. Texts whose features overlap by a cosine c
differ in about 64 arccos(c) / pi bits: 3 bits are c = 0.99, which is the same text but for case, punctuation
and spaces, or a word in some fifty. Features are the different words; of writing without spaces, pairs of letters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from quantgate.watch import Talk

READ = 512  # characters at either end of a prompt: a long document with another question is another prompt
FEWEST = 5  # features; "yes", "go on" and "thank you very much" may come as often as they like
MOST = 96  # of which one bit each is counted in a byte
WORD = re.compile(r"\w+")
CLOSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Thai to Khmer, kana, Han
RUN = re.compile(f"[{CLOSE}]+")
PAIRS_FEWEST = 9  # of them; ten letters of Chinese are a short sentence
SIGNS = (1 << 64) - 1


def prompt_hash(talk: Talk, key: bytes) -> int | None:
    """The signed 64-bit hash of what the user asked last, under ``key`` (any bytes).

    None where the newest message is not the user's (a tool's result goes back: nobody asked again), and where it is
    too short to tell one from another.

    >>> def asked(text): return prompt_hash(Talk([{"role": "user", "content": text}], []), b"secret")
    >>> asked("Which train leaves Ulm at noon?") == asked("which  train leaves ulm at noon"), asked("Yes, go on!")
    (True, None)
    """
    if not talk.prompt or talk.prompt[-1].get("role") != "user":
        return None
    found = features(talk.asked)
    if not found:
        return None
    copy, bits = _keyed(key).copy, []
    for one in "\n".join(found).encode("utf-8", "surrogatepass").split(b"\n"):  # no feature holds an end of line
        digest = copy()
        digest.update(one)
        bits.append(digest.digest())
    votes = np.unpackbits(np.frombuffer(b"".join(bits), dtype=np.uint8)).reshape(-1, 64).sum(axis=0, dtype=np.uint8)
    return int.from_bytes(np.packbits(votes > len(found) // 2).tobytes(), "big", signed=True)


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> blake2b:
    return blake2b(digest_size=8, key=blake2b(key, person=b"quantgate-prompt", digest_size=32).digest())


def features(text: str) -> list[str]:
    """The different words and pairs of letters, in their order; none of a text that is too short."""
    if len(text) > 2 * READ:
        text = f"{text[:READ]} {text[-READ:]}"
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    if not text.isascii() and (runs := RUN.findall(text)):
        pairs = list(dict.fromkeys(run[at : at + 2] for run in runs for at in range(len(run) - 1)))
        words = list(dict.fromkeys(WORD.findall(RUN.sub(" ", text))))
        found = pairs + words if len(pairs) + len(words) >= PAIRS_FEWEST else []
    else:
        words = list(dict.fromkeys(WORD.findall(text)))
        found = words if len(words) >= FEWEST else []
    return found if len(found) <= MOST else found[: MOST // 2] + found[-MOST // 2 :]


def distance(one: int, other: int) -> int:
    """Bits that differ.

    >>> distance(-1, 0), distance(-1, -2), distance(5, 5)
    (64, 1, 0)
    """
    return ((one ^ other) & SIGNS).bit_count()
