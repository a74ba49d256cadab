"""What is counted once: exchanges by their id, sessions by their name; and what a session did before.

Everything here depends on the rows of the journal in the order of their numbers and on nothing else, so a watch that is
killed and begun again knows the same. What is kept is bounded, and what is forgotten is forgotten by number or by
count, never by side: a unit that is lost or counted again is so for either side alike.

    Rows     the last 20,000 rows of the journal: ids met, and of each session its last exchanges; rebuilt from the rows
    Clock    which exchange is late, and how much time a trial has had, among clocks that jump
    Seen     sessions whose values were counted, and for which signals; some 40,000 to 80,000 of them
    Filter   a set in fixed space, for "this session was bad in this signal already"
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Self

from quantgate.serve import Exchange

SPAN = 20_000  # rows of the journal that are remembered whole
BEFORE, BEFORE_S = 8, 600.0  # exchanges of a session that a signal sees, and the longest pause since each
SURE_AHEAD = 20  # exchanges, one after another, before a clock is believed that leapt ahead
SURE_BACK = 200  # likewise for one that was set back: until then they are late
WORD = (1 << 64) - 1


def key_of(name: str) -> int:
    """64 bits of a name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def mixed(key: int, salt: int) -> int:
    """Another 64 bits for each salt (the finaliser of splitmix64)."""
    key = (key ^ salt) & WORD
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & WORD
    return key ^ (key >> 31)


def ended(exchange: Exchange) -> float:
    """When an exchange was over, seconds since 1970: about when it came to the journal, however long it took."""
    return exchange.at + max(exchange.total_s, 0.0)


class Rows:
    """The last ``span`` row numbers: what was met there."""

    def __init__(self, span: int = SPAN) -> None:
        self._span = span
        self._order: deque[tuple[int, str, str]] = deque()  # number, id, session; the lowest number first
        self._ids: dict[str, int] = {}
        self._sessions: dict[str, deque[tuple[int, Exchange]]] = {}

    def take(self, number: int, exchange: Exchange) -> Sequence[Exchange] | None:
        """What the session did before, the oldest first; None: this exchange was met already."""
        self._forget(number - self._span)
        met = f"{exchange.id}/shadow" if exchange.shadow else exchange.id
        known = met in self._ids
        self._ids[met] = number
        told = exchange.told_session and not exchange.shadow
        self._order.append((number, met, exchange.session if told else ""))
        if not told:
            return None if known else ()
        own = self._sessions.setdefault(exchange.session, deque(maxlen=BEFORE))
        if known:  # as if it had come just now: what is remembered then depends on the last rows alone
            for at, one in enumerate(own):
                if one[1].id == exchange.id:
                    del own[at]
                    break
        before = (
            None if known else tuple(one for _, one in own if one.at - BEFORE_S <= exchange.at <= ended(one) + BEFORE_S)
        )
        own.append((number, exchange))
        return before

    def _forget(self, upto: int) -> None:
        while self._order and self._order[0][0] <= upto:
            number, met, session = self._order.popleft()
            if self._ids.get(met) == number:
                del self._ids[met]
            own = self._sessions.get(session)
            while own and own[0][0] <= upto:
                own.popleft()
            if own is not None and not own:
                del self._sessions[session]


@dataclass(slots=True)
class Clock:
    """The time of a trial, out of what exchanges say of theirs. One wrong clock moves it nowhere."""

    late_s: float
    at: float | None = None  # the newest that is believed, seconds since 1970
    elapsed_s: float = 0.0  # only grows, and at a gap or leap by no more than ``late_s``
    ahead: int = 0
    ahead_at: float = 0.0
    back: int = 0
    back_at: float = 0.0

    def see(self, at: float) -> bool:
        """Whether an exchange that ended then is on time: no older than ``late_s`` behind the newest."""
        if self.at is None:
            self.at = at
            return True
        if at < self.at - self.late_s:
            self.ahead, self.back, self.back_at = 0, self.back + 1, max(at, self.back_at) if self.back else at
            if self.back >= SURE_BACK:
                self.at, self.back = self.back_at, 0
            return False
        self.back = 0
        if at <= self.at + self.late_s:
            self.ahead = 0
            self._go(at, self.at)
            return True
        self.ahead, self.ahead_at = self.ahead + 1, min(at, self.ahead_at) if self.ahead else at
        if self.ahead >= SURE_AHEAD:
            self.ahead = 0
            self._go(self.ahead_at, self.at)
        return True

    def _go(self, at: float, before: float) -> None:
        self.elapsed_s += min(max(at - before, 0.0), self.late_s)
        self.at = max(at, before)

    def state(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "late_s"}

    @classmethod
    def of(cls, state: dict[str, Any], late_s: float) -> Self:
        return cls(late_s, **state)


class Filter:
    """A set of 64-bit keys in two Bloom filters of fixed size: as one is full, the older one is forgotten.

    At most one key in twenty is taken for known though it is new. That is the same for both sides: it loses units.
    """

    def __init__(self, bits: int) -> None:
        """``bits``: of one of the two, a power of two; it takes a key for each 6.5 of them."""
        self.bits, self.most = bits, int(bits / 6.5)
        self._now, self._old, self._n = bytearray(bits // 8), bytearray(bits // 8), 0
        self._told: list[Any] | None = None

    def __contains__(self, key: int) -> bool:
        at = self._places(key)
        return all(self._now[one >> 3] >> (one & 7) & 1 for one in at) or all(
            self._old[one >> 3] >> (one & 7) & 1 for one in at
        )

    def add(self, key: int) -> bool:
        """Whether it was new."""
        if key in self:
            return False
        if self._n >= self.most:
            self._old, self._now, self._n = self._now, bytearray(self.bits // 8), 0
        for one in self._places(key):
            self._now[one >> 3] |= 1 << (one & 7)
        self._n += 1
        self._told = None
        return True

    def _places(self, key: int) -> tuple[int, ...]:
        first, step, mask = key, (key >> 32) | 1, self.bits - 1
        return (first & mask, (first + step) & mask, (first + 2 * step) & mask, (first + 3 * step) & mask)

    def state(self) -> list[Any]:
        if self._told is None:
            self._told = [self.bits, self._n, _packed(self._now), _packed(self._old)]
        return self._told

    @classmethod
    def of(cls, state: Sequence[Any]) -> Self:
        made = cls(state[0])
        made._n, made._now, made._old = state[1], bytearray(_unpacked(state[2])), bytearray(_unpacked(state[3]))
        return made


class Seen:
    """Sessions that were counted, and in which signals (a bit each); exactly so for the last few thousand.

    A session that comes back after those is known as counted, and no new value is taken from it; after some 40,000 to
    80,000 other sessions it is new again.
    """

    EXACT = 4096
    BITS = 1 << 18
    ALL = WORD

    def __init__(self) -> None:
        self._marks: OrderedDict[int, int] = OrderedDict()
        self._known = Filter(self.BITS)

    def meet(self, key: int) -> tuple[bool, int]:
        """Whether the session is new; the signals that were counted of it."""
        mask = self._marks.get(key)
        if mask is not None:
            self._marks.move_to_end(key)
            return False, mask
        new = self._known.add(key)
        mask = 0 if new else self.ALL
        self._marks[key] = mask
        if len(self._marks) > self.EXACT:
            self._marks.popitem(last=False)
        return new, mask

    def counted(self, key: int, mask: int) -> None:
        self._marks[key] = mask

    def state(self) -> list[Any]:
        flat = [one for pair in self._marks.items() for one in pair]
        return [_packed(struct.pack(f"<{len(flat)}Q", *flat)), self._known.state()]

    @classmethod
    def of(cls, state: Sequence[Any]) -> Self:
        made = cls()
        raw = _unpacked(state[0])
        flat = struct.unpack(f"<{len(raw) // 8}Q", raw)
        made._marks.update(zip(flat[::2], flat[1::2], strict=True))
        made._known = Filter.of(state[1])
        return made


def _packed(raw: bytes | bytearray) -> str:
    return base64.b64encode(zlib.compress(raw, 1)).decode()


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
