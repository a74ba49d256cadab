"""Repairs that cost no token: what models do to JSON that lost its shape but not its meaning.

A text is read leniently, once, and written again as JSON; every liberty that was taken is named. The value is never
changed, completed or guessed at: a text that ends within a string or a word, a second value, or words whose meaning is
open (``NaN``, a key without a value) are left alone, and then there is no repair.

    fence               a code block around it            quotes          'single quotes' around texts and keys
    prose               words before or behind it         literals        Python's True, False and None
    byte_order_mark     a mark before it                  control         raw line ends and tabs within texts
    trailing_comma      a comma before a bracket closes   brackets        closing brackets missing at the end
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from quantgate.guard.reading import FENCED

PLAIN = {quote: re.compile(rf"[^{quote}\\\x00-\x1f]+") for quote in "\"'"}
BLANKS = re.compile(r"[ \t\r\n]*")
WORD = re.compile(r"[A-Za-z_]+")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
ESCAPES = frozenset('"\\/bfnrt')
BETWEEN = {"colon": ":", "after": ","}
CLOSING = ("after", "key", "item", "first_key", "first_item")
START = re.compile(r"[\[{]")
LONGEST = 1_000_000  # characters; nothing longer is mended


class Lost(Exception):
    """The text cannot be read without guessing."""


def repair(text: str, check: Callable[[str], bool]) -> tuple[str, Sequence[str]] | None:
    """The text as JSON that ``check`` passes, and the repairs by name; None where none does.

    >>> repair("Here you are: {'a': True, 'b': [1, 2,],}", lambda text: True)
    ('{"a": true, "b": [1, 2]}', ('prose', 'quotes', 'literals', 'trailing_comma'))
    """
    if not text or len(text) > LONGEST:
        return None
    try:
        mended, names = _mended(text)
    except Lost:
        return None
    return (mended, tuple(names)) if names and check(mended) else None


def _mended(text: str) -> tuple[str, list[str]]:
    names: dict[str, None] = {}
    inner = text.strip()
    if inner.startswith("\ufeff"):
        names["byte_order_mark"] = None
        inner = inner.lstrip("\ufeff \t\r\n")
    blocks = list(FENCED.finditer(inner))
    if len(blocks) == 1 and not START.search(inner[: blocks[0].start()] + inner[blocks[0].end() :]):
        names["fence"] = None
        if inner[: blocks[0].start()].strip() or inner[blocks[0].end() :].strip():
            names["prose"] = None
        inner = blocks[0][1].strip()
    begin = START.search(inner)
    first = inner[:1]
    if begin is not None and begin.start() > 0 and first not in "\"'":
        names["prose"] = None
        inner = inner[begin.start() :]
    reader = _Lenient(inner, names)
    written = reader.value()
    behind = inner[reader.place :].strip()
    if behind:
        if begin is None or reader.closed or START.search(behind) or "}" in behind or "]" in behind:
            raise Lost
        names["prose"] = None
    return written, list(names)


class _Lenient:
    """Reads one value and writes it as JSON; no recursion, so that no nesting can exhaust the stack."""

    def __init__(self, text: str, names: dict[str, None]) -> None:
        self.text, self.names = text, names
        self.place = 0
        self.closed = False  # whether brackets were added, so that nothing may stand behind

    def value(self) -> str:
        """The value as JSON. Raises Lost."""
        written: list[str] = []
        opened: list[str] = []
        due = "value"  # or: key, item, colon, after; first_key, first_item behind a bracket that opens
        while True:
            blanks = BLANKS.match(self.text, self.place)
            self.place = blanks.end() if blanks else self.place
            char = self.text[self.place : self.place + 1]
            if not char:
                return self._ended(written, opened, due)
            if opened and char == opened[-1] and due in CLOSING:
                due = self._close(written, opened, due)
            elif due in BETWEEN:
                if char != BETWEEN[due]:
                    raise Lost
                self.place += 1
                written.append(f"{char} ")
                due = "value" if char == ":" else "key" if opened[-1] == "}" else "item"
            elif due in ("key", "first_key"):
                written.append(self._text(char))
                due = "colon"
            elif char in "{[":
                self.place += 1
                written.append(char)
                opened.append("}" if char == "{" else "]")
                due = "first_key" if char == "{" else "first_item"
            else:
                written.append(self._scalar(char))
                due = "after"
            if due == "after" and not opened:
                return "".join(written)

    def _close(self, written: list[str], opened: list[str], due: str) -> str:
        if due in ("key", "item"):
            written.pop()
            self.names["trailing_comma"] = None
        self.place += 1
        written.append(opened.pop())
        return "after"

    def _ended(self, written: list[str], opened: list[str], due: str) -> str:
        """The text ends within brackets: they are closed where a value has just ended, and nowhere else."""
        if not opened or due != "after":
            raise Lost
        self.names["brackets"] = None
        self.closed = True
        return "".join(written) + "".join(reversed(opened))

    def _scalar(self, char: str) -> str:
        if char in "\"'":
            return self._text(char)
        number = NUMBER.match(self.text, self.place)
        if number:
            return self._take(number[0], number[0])
        word = WORD.match(self.text, self.place)
        if word is None or word[0] not in WORDS:
            raise Lost
        if word[0] != WORDS[word[0]]:
            self.names["literals"] = None
        return self._take(word[0], WORDS[word[0]])

    def _take(self, read: str, written: str) -> str:
        """A bare word or number, which something else than a letter or digit must follow."""
        self.place += len(read)
        following = self.text[self.place : self.place + 1]
        if following and (following.isalnum() or following in "._+-\"'"):
            raise Lost
        return written

    def _text(self, quote: str) -> str:
        if quote not in PLAIN or not quote:
            raise Lost
        if quote == "'":
            self.names["quotes"] = None
        pieces = ['"']
        self.place += 1
        while True:
            char = self.text[self.place : self.place + 1]
            if not char:
                raise Lost
            if char == quote:
                self.place += 1
                pieces.append('"')
                return "".join(pieces)
            plain = PLAIN[quote].match(self.text, self.place)
            if plain:
                pieces.append(plain[0].replace('"', '\\"') if quote == "'" else plain[0])
                self.place = plain.end()
            elif char == "\\":
                pieces.append(self._escape())
            else:
                self.names["control"] = None
                pieces.append(json.dumps(char)[1:-1])
                self.place += 1

    def _escape(self) -> str:
        char = self.text[self.place + 1 : self.place + 2]
        length = 6 if char == "u" else 2
        found = self.text[self.place : self.place + length]
        self.place += length
        if char == "'":
            self.names["quotes"] = None
            return "'"
        if (char in ESCAPES and char) or (char == "u" and re.fullmatch(r"\\u[0-9a-fA-F]{4}", found)):
            return found
        raise Lost
