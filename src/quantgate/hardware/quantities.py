"""What a person writes for a size, a time, a rate or a price, as numbers in base units. One sentence for what is none.

>>> seconds("300ms"), per_second("8/s"), price("2.50/h"), size("8GiB")
(0.3, 8.0, 2.5, 8589934592)
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

BYTES = {"B": 1} | {
    f"{one}{end}": base ** (at + 1) for end, base in (("B", 1000), ("iB", 1024)) for at, one in enumerate("KMGT")
}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
RATES = {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600}
PRICES = {"/h": 1.0, "/d": 1 / 24, "/month": 1 / 730}  # a month of a cloud's price list has 730 hours
NUMBER = r"\s*([-+]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(\S*)\s*"
LONGEST_S = 3600.0  # an objective beyond it is a slip of the pen
FASTEST = 1e6  # requests a second


def _read(value: Any, units: dict[str, float] | dict[str, int], example: str) -> float:
    """The number in base units; one without a unit is none, so that 300 is not taken for seconds."""
    found = re.fullmatch(NUMBER, value) if isinstance(value, str) else None
    unit = found and next((one for one in units if one.lower() == found[2].lower()), None)
    if not found or unit is None:
        raise ValueError(f"expected {example} with its unit ({', '.join(units)}), found {value!r}")
    number = float(found[1]) * units[unit]
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"expected {example}, more than nothing, found {value!r}")
    return number


def size(value: Any) -> Any:
    """``8GiB`` -> bytes; a whole number is bytes already."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(_read(value, BYTES, "a size such as 8GiB"))


def seconds(value: Any, longest_s: float = LONGEST_S) -> float:
    """``300ms`` -> 0.3."""
    number = _read(value, TIMES, "a time such as 300ms")
    if number > longest_s:
        raise ValueError(f"{value!r} is more than {longest_s / 3600:g} h; expected a time such as 300ms")
    return number


def per_second(value: Any) -> float:
    """``8/s`` -> 8.0 requests a second."""
    number = _read(value, RATES, "a rate such as 8/s")
    if number > FASTEST:
        raise ValueError(f"{value!r} is more than a million requests a second; expected a rate such as 8/s")
    return number


def price(value: Any) -> float:
    """``2.50/h``, ``$2.50/h`` -> 2.5 an hour, in whatever money the user counts in."""
    text = re.sub(r"^\s*[$€£]", "", value) if isinstance(value, str) else value
    return _read(text, PRICES, "a price such as 2.50/h")


def per_million(value: Any) -> float:
    """``0.50/M`` -> 0.5 for a million tokens."""
    text = re.sub(r"^\s*[$€£]", "", value) if isinstance(value, str) else value
    return _read(text, {"/M": 1.0, "/k": 1000.0}, "a price such as 0.50/M")


def _with(unit: str) -> PlainSerializer:
    """A record writes the unit as well, so that what it wrote can be read by the same rule."""
    return PlainSerializer(lambda value: f"{value!r}{unit}", return_type=str)


Bytes = Annotated[int, BeforeValidator(size), Field(gt=0)]
Seconds = Annotated[float, BeforeValidator(seconds), _with("s")]
PerSecond = Annotated[float, BeforeValidator(per_second), _with("/s")]
PerMillion = Annotated[float, BeforeValidator(per_million), _with("/M")]
PerHour = Annotated[float, BeforeValidator(price), _with("/h")]


def told_bytes(count: float) -> str:
    """
    >>> told_bytes(137_900_000_000), told_bytes(4_200_000)
    ('137.9 GB', '4.2 MB')
    """
    return f"{count / 1e9:.1f} GB" if abs(count) >= 1e9 else f"{count / 1e6:.1f} MB"


def told_seconds(count: float) -> str:
    """
    >>> told_seconds(0.0123), told_seconds(0.3), told_seconds(2.5), told_seconds(3e-5)
    ('12.3 ms', '300 ms', '2.50 s', '0.03 ms')
    """
    ms = 1e3 * count
    return f"{count:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"
