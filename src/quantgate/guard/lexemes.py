"""The words of JSON read by pieces: a text with its escapes, a number, a literal, each cut anywhere."""

from __future__ import annotations

import re

from quantgate.guard.reading import DECODER

PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
ESCAPES = frozenset('"\\/bfnrt')
HEXES = frozenset("0123456789abcdefABCDEF")
STEPS = {  # of a number: what may follow, by where it stands
    "-": {"0": "zero"} | dict.fromkeys("123456789", "whole"),
    "zero": {".": "point", "e": "e", "E": "e"},
    "whole": {".": "point", "e": "e", "E": "e"} | dict.fromkeys("0123456789", "whole"),
    "point": dict.fromkeys("0123456789", "part"),
    "part": {"e": "e", "E": "e"} | dict.fromkeys("0123456789", "part"),
    "e": {"+": "sign", "-": "sign"} | dict.fromkeys("0123456789", "power"),
    "sign": dict.fromkeys("0123456789", "power"),
    "power": dict.fromkeys("0123456789", "power"),
}
ENDINGS = frozenset(("zero", "whole", "part", "power"))  # where a number may end


class Dead(Exception):
    """No continuation of a text is JSON, or none keeps the schema; the sentence says why."""


class Lexeme:
    """One text, number or literal that is not whole yet. Used again for the next one."""

    __slots__ = ("escaped", "length", "parts", "within")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0  # characters of a text, as they came
        self.escaped = False  # whether a text has escapes
        self.within = ""  # the place in an escape or a number; what is left of a literal

    def begin(self, within: str = "", first: str = "") -> None:
        self.parts.clear()
        if first:
            self.parts.append(first)
        self.length, self.escaped, self.within = 0, False, within

    def begun(self) -> str:
        """What has come, as it came."""
        return "".join(self.parts)

    def text(self, piece: str, place: int) -> tuple[int, bool]:
        """The place behind, and whether the text is whole. Raises Dead."""
        if self.within:
            return self._escape(piece, place), False
        match = PLAIN.match(piece, place)
        end = match.end() if match else place
        self.parts.append(piece[place:end])
        self.length += end - place
        if end == len(piece):
            return end, False
        if piece[end] == '"':
            return end + 1, True
        if piece[end] != "\\":
            raise Dead("a control character that is not escaped, in a text")
        self.within, self.escaped = "\\", True
        self.parts.append("\\")
        return end + 1, False

    def _escape(self, piece: str, place: int) -> int:
        """One character behind a backslash; ``within`` counts what has come."""
        char = piece[place]
        if self.within == "\\":
            if char != "u" and char not in ESCAPES:
                raise Dead("a backslash that escapes nothing, in a text")
            self.within = "u" if char == "u" else ""
        elif char in HEXES:
            self.within = self.within + "x" if len(self.within) < 4 else ""
        else:
            raise Dead("\\u without four hexadecimal digits, in a text")
        self.parts.append(char)
        return place + 1

    def whole_text(self) -> str:
        """The text that is whole, without its escapes. Raises Dead at half a surrogate pair."""
        raw = "".join(self.parts)
        if self.escaped:
            raw = str(DECODER.decode(f'"{raw}"'))
        if self.escaped or not raw.isascii():
            try:
                raw.encode()
            except UnicodeEncodeError:
                raise Dead("half a surrogate pair, in a text") from None
        return raw

    def number(self, piece: str, place: int) -> tuple[int, bool]:
        """The place behind, and whether the number is whole: something else follows. Raises Dead."""
        start, end, within = place, len(piece), self.within
        while place < end:
            following = STEPS[within].get(piece[place])
            if following is None:
                break
            within = following
            place += 1
        self.within = within
        self.parts.append(piece[start:place])
        if place < end and within not in ENDINGS:
            raise Dead(f"{piece[place]!r} in a number")
        return place, place < end

    def literal(self, piece: str, place: int) -> tuple[int, bool]:
        """The place behind, and whether the literal is whole. Raises Dead."""
        came = piece[place : place + len(self.within)]
        if not self.within.startswith(came):
            raise Dead(f"{came[0]!r} in a word")
        self.within = self.within[len(came) :]
        return place + len(came), not self.within
