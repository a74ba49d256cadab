"""A text that is still being written: can it yet become JSON that a schema allows?

A reader of JSON by pieces, in whatever order of keys and with whatever blanks and escapes the model chooses. For the
value that is open, and for each bracket around it, it keeps the shapes (``shapes.py``) that the value may still have. A
shape dies with the first thing that it forbids; a shape around it dies when none is left of what it demands here; when
none is left at all, no continuation can keep the schema. It never refuses the beginning of an answer that the whole
check would pass; what it lets through, the whole check judges at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from quantgate.guard import Fault
from quantgate.guard.lexemes import Dead, Lexeme
from quantgate.guard.limits import DEFAULT, Limits
from quantgate.guard.plain import ARRAY, FALSE, NULL, NUMBER, OBJECT, TEXT, TRUE
from quantgate.guard.reading import DECODER, NotJson, shown
from quantgate.guard.shapes import ANYTHING, Shape

BLANKS = re.compile(r"[ \t\r\n]*")
WORDS = {"t": "true", "f": "false", "n": "null"}
STARTS = {"{": OBJECT, "[": ARRAY, '"': TEXT, "t": TRUE, "f": FALSE, "n": NULL} | dict.fromkeys("-0123456789", NUMBER)
SAID = {OBJECT: "an object", ARRAY: "an array", TEXT: "a text", NUMBER: "a number"}
MOST = 256  # shapes of one value, out of all that the shapes around it demand

State = Callable[["Reader", str, int], int]  # reads on from a place in the piece, gives the place behind
Ups = list[set[int]]  # of each shape of a value: which shapes of the bracket around it need it


class Endless(Exception):
    """A run of blanks without end."""


class Open:
    """A bracket that is not closed yet."""

    __slots__ = ("count", "is_object", "key", "keys", "shapes", "ups")

    def __init__(self, is_object: bool, shapes: Sequence[Shape], ups: Ups | None) -> None:
        self.is_object, self.shapes, self.ups = is_object, shapes, ups
        self.count = 0  # of items or keys so far
        self.key = ""
        self.keys: set[str] = set()

    def keep(self, left: Sequence[int]) -> None:
        """Only these shapes are left."""
        if len(left) < len(self.shapes):
            self.shapes = [self.shapes[one] for one in left]
            self.ups = self.ups and [self.ups[one] for one in left]

    def below(self, found: Sequence[tuple[Shape, ...]]) -> tuple[Sequence[Shape], Ups | None]:
        """The shapes of a value within, out of those that each shape of the bracket demands of it."""
        if len(found) == 1:
            return found[0], None
        merged: dict[Shape, set[int]] = {}
        for place, shapes in enumerate(found):
            for shape in shapes:
                merged.setdefault(shape, set()).add(place)
        if len(merged) > MOST:  # left to the whole check
            return [ANYTHING], [set().union(*merged.values())]
        return list(merged), list(merged.values())


class Reader:
    """Implements ``guard.Prefix``."""

    __slots__ = ("blanks", "fault", "lexeme", "limits", "opened", "shapes", "state", "ups", "watched", "where")

    def __init__(self, start: Sequence[Shape], where: str = "content", limits: Limits = DEFAULT) -> None:
        self.shapes: Sequence[Shape] = start  # of the value that is open or comes next
        self.ups: Ups | None = None
        self.where, self.limits = where, limits
        self.fault: Fault | None = None
        self.state: State = _value
        self.opened: list[Open] = []
        self.blanks = 0  # in a row
        self.lexeme = Lexeme()
        self.watched = False  # whether a text is judged while it is written

    def feed(self, text: str) -> Fault | None:
        if self.fault is not None:
            return self.fault
        place, end = 0, len(text)
        try:
            while place < end:
                place = self.state(self, text, place)
            if self.watched:
                _half(self)
        except Dead as dead:
            self.fault = Fault("prefix", self.where, f"{_path(self.opened)}{dead}")
        except Endless:
            sentence = f"{_path(self.opened)}more than {self.limits.whitespace} blanks in a row"
            self.fault = Fault("whitespace", self.where, sentence)
        return self.fault


def _path(opened: list[Open]) -> str:
    """Where the newest value is, out of the brackets around it."""
    steps = [f".{shown(one.key)}" if one.is_object else f"[{max(one.count - 1, 0)}]" for one in opened[:16]]
    path = "".join(steps).strip(".")
    return f"'{path}': " if path else ""


def _skip(self: Reader, text: str, place: int) -> int:
    """Over blanks; counts a run across pieces."""
    match = BLANKS.match(text, place)
    end = match.end() if match else place
    self.blanks += end - place
    if self.blanks > self.limits.whitespace:
        raise Endless
    if end < len(text):
        self.blanks = 0
    return end


def _value(self: Reader, text: str, place: int) -> int:
    char = text[place]
    bit = STARTS.get(char)
    if bit is None:
        after = _skip(self, text, place)
        if after == place:
            raise Dead(f"{char!r} begins no JSON value")
        return after
    self.blanks = 0
    _narrow(self, [shape.types & bit for shape in self.shapes], f"{SAID.get(bit) or WORDS[char]} is not allowed here")
    if bit == TEXT:
        self.lexeme.begin()
        self.watched = any(shape.words is not None or shape.max_length is not None for shape in self.shapes)
        self.state = _text
    elif bit == NUMBER:
        self.lexeme.begin("-" if char == "-" else "zero" if char == "0" else "whole", char)
        self.state = _number
    elif bit in (OBJECT, ARRAY):
        _begin(self, bit == OBJECT)
    else:
        self.lexeme.begin(WORDS[char][1:])
        self.state = _word
    return place + 1


def _begin(self: Reader, is_object: bool) -> None:
    self.opened.append(Open(is_object, self.shapes, self.ups))
    if len(self.opened) > self.limits.depth:
        raise Dead(f"nested deeper than {self.limits.depth} brackets")
    self.state = _first_key if is_object else _first_item


def _narrow(self: Reader, left: list[bool] | list[int], sentence: str) -> None:
    """Keeps the shapes of the open value that are marked."""
    if all(left):
        if not left:
            raise Dead(sentence)
        return
    places = [place for place, one in enumerate(left) if one]
    if not places:
        raise Dead(sentence)
    self.shapes = [self.shapes[place] for place in places]
    self.ups = self.ups and [self.ups[place] for place in places]


def _done(self: Reader) -> None:
    """The open value is whole."""
    self.watched = False
    if not self.opened:
        self.state = _end
        return
    if self.ups is not None:
        self.opened[-1].keep(sorted(set().union(*self.ups)))
    self.state = _after


def _end(self: Reader, text: str, place: int) -> int:
    after = _skip(self, text, place)
    if after == place:
        raise Dead("text behind the JSON value")
    return after


# texts and keys


def _text(self: Reader, text: str, place: int) -> int:
    place, whole = self.lexeme.text(text, place)
    if whole:
        value = self.lexeme.whole_text()
        if any(shape.texts for shape in self.shapes):
            kept = [all(check.is_valid(value) for check in shape.texts) for shape in self.shapes]
            _narrow(self, kept, f"the text '{shown(value)}' is not allowed here")
        _done(self)
    return place


def _half(self: Reader) -> None:
    """Drops what a text is already too long for, or is no beginning of."""
    lexeme = self.lexeme
    if lexeme.escaped:
        return
    if self.state is _key:
        begun = lexeme.begun()
        if not any(_begins(begun, shape.closed) for shape in self.opened[-1].shapes):
            raise Dead(f"no key that begins with '{shown(begun)}' is allowed here")
        return
    counted = any(shape.words is not None and lexeme.length <= shape.longest for shape in self.shapes)
    begun = lexeme.begun() if counted else ""
    kept = [_fits(shape, lexeme.length, begun) for shape in self.shapes]
    _narrow(self, kept, "the text is not the beginning of one that is allowed here")


def _fits(shape: Shape, length: int, begun: str) -> bool:
    if shape.max_length is not None and length > shape.max_length:
        return False
    return shape.words is None or (length <= shape.longest and _begins(begun, shape.words))


def _begins(begun: str, words: frozenset[str] | None) -> bool:
    return words is None or any(word.startswith(begun) for word in words)


def _first_key(self: Reader, text: str, place: int) -> int:
    if text[place] == "}":
        return _close(self, place)
    return _next_key(self, text, place)


def _next_key(self: Reader, text: str, place: int) -> int:
    if text[place] == '"':
        self.lexeme.begin()
        self.blanks = 0
        self.state = _key
        self.watched = all(shape.closed is not None for shape in self.opened[-1].shapes)
        return place + 1
    after = _skip(self, text, place)
    if after == place:
        raise Dead(f"{text[place]!r} where a key is due")
    return after


def _key(self: Reader, text: str, place: int) -> int:
    place, whole = self.lexeme.text(text, place)
    if whole:
        self.watched = False
        _keyed(self, self.lexeme.whole_text())
        self.state = _colon
    return place


def _keyed(self: Reader, key: str) -> None:
    top = self.opened[-1]
    if key in top.keys:
        raise Dead(f"the key '{shown(key)}' is given twice")
    top.keys.add(key)
    top.key = key
    top.count += 1
    count = top.count
    top.keep([n for n, shape in enumerate(top.shapes) if shape.max_properties is None or count <= shape.max_properties])
    if not top.shapes:
        raise Dead(f"more than the keys that are allowed here: {count}")
    self.shapes, self.ups = top.below([shape.key(key) for shape in top.shapes])
    if not self.shapes:
        raise Dead("no such key is allowed here")


def _colon(self: Reader, text: str, place: int) -> int:
    if text[place] == ":":
        self.state = _value
        self.blanks = 0
        return place + 1
    after = _skip(self, text, place)
    if after == place:
        raise Dead(f"{text[place]!r} where a colon is due")
    return after


# brackets


def _first_item(self: Reader, text: str, place: int) -> int:
    char = text[place]
    if char == "]":
        return _close(self, place)
    if char in " \t\r\n":
        return _skip(self, text, place)
    _next_item(self)
    return _value(self, text, place)


def _next_item(self: Reader) -> None:
    top = self.opened[-1]
    self.shapes, self.ups = top.below([shape.item(top.count) for shape in top.shapes])
    top.count += 1
    if not self.shapes:
        raise Dead("one item more than is allowed")
    self.state = _value


def _after(self: Reader, text: str, place: int) -> int:
    """Behind a value in a bracket."""
    char = text[place]
    top = self.opened[-1]
    if char == ",":
        self.blanks = 0
        if top.is_object:
            top.key = ""
            self.state = _next_key
        else:
            _next_item(self)
        return place + 1
    if char == ("}" if top.is_object else "]"):
        return _close(self, place)
    after = _skip(self, text, place)
    if after == place:
        raise Dead(f"{char!r} where a comma or the closing bracket is due")
    return after


def _close(self: Reader, place: int) -> int:
    top = self.opened[-1]
    self.blanks = 0
    if top.is_object:
        kept = [n for n, one in enumerate(top.shapes) if one.required <= top.keys and top.count >= one.min_properties]
        missing = "" if kept else ", ".join(f"'{shown(key)}'" for key in sorted(top.shapes[0].required - top.keys)[:3])
        sentence = f"the object ends without {missing or 'as many keys as are demanded'}"
    else:
        kept = [n for n, one in enumerate(top.shapes) if top.count >= one.min_items]
        sentence = f"the array ends after {top.count} items, before it may"
    if not kept:
        top.key = ""
        raise Dead(sentence)
    top.keep(kept)
    self.opened.pop()
    self.shapes, self.ups = top.shapes, top.ups
    _done(self)
    return place + 1


# numbers and words


def _number(self: Reader, text: str, place: int) -> int:
    place, whole = self.lexeme.number(text, place)
    if whole:
        _judge_number(self, self.lexeme.begun())
        _done(self)
    return place


def _judge_number(self: Reader, digits: str) -> None:
    try:
        value = DECODER.decode(digits)
    except (NotJson, ValueError):
        raise Dead("a number that is too large") from None
    if any(shape.numbers for shape in self.shapes):
        kept = [all(check.is_valid(value) for check in shape.numbers) for shape in self.shapes]
        _narrow(self, kept, f"the number {shown(digits)} is not allowed here")


def _word(self: Reader, text: str, place: int) -> int:
    place, whole = self.lexeme.literal(text, place)
    if whole:
        _done(self)
    return place
